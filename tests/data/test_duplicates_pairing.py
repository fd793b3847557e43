from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unfreeze.data.duplicates import NEAREST, RADIUS, cluster_numbers, propose_pairs

hash_ = st.integers(0, 2**64 - 1)


def near_pairs(rows: list[list[int]], radius: int) -> set[tuple[int, int]]:
    return {
        (i, j)
        for i, j in combinations(range(len(rows)), 2)
        for a, b in ((i, j), (j, i))
        for asking in (rows[a][0], rows[a][2])
        for offered in rows[b]
        if (asking ^ offered).bit_count() <= radius
    }


@settings(deadline=None, max_examples=40)
@given(st.lists(st.tuples(hash_, hash_, hash_, hash_), min_size=2, max_size=12), st.data())
def test_proposed_pairs_have_near_hashes_and_nearer_pairs_are_all_proposed(rows, data):
    rows = [list(row) for row in rows]
    for _ in range(data.draw(st.integers(0, 6))):  # plant some that are near
        one, other = (data.draw(st.integers(0, len(rows) - 1)) for _ in range(2))
        bits = data.draw(st.sets(st.integers(0, 63), max_size=12))
        target = rows[other]
        target[data.draw(st.integers(0, 3))] = rows[one][data.draw(st.sampled_from([0, 2]))] ^ sum(1 << b for b in bits)
    found = {tuple(pair) for pair in propose_pairs(np.array(rows, np.uint64)).tolist()}
    assert near_pairs(rows, 5) <= found <= near_pairs(rows, RADIUS)


@pytest.mark.parametrize("count", [2_000, 20_000])
def test_few_pairs_are_missed_at_the_radius(count):
    generator = np.random.default_rng(0)
    hashes = generator.integers(0, 2**64, (count, 4), np.uint64)
    bits = np.argsort(generator.random((count // 2, 64)), axis=1)[:, :RADIUS]
    hashes[: count // 2, 2] = hashes[count // 2 :, 0] ^ (np.uint64(1) << bits.astype(np.uint64)).sum(
        axis=1, dtype=np.uint64
    )
    planted = {(number, number + count // 2) for number in range(count // 2)}
    pairs = propose_pairs(hashes)
    assert len(planted & {tuple(pair) for pair in pairs.tolist()}) >= 0.985 * len(planted)
    one, other = hashes[pairs[:, 0]], hashes[pairs[:, 1]]  # some are near by chance
    assert (np.bitwise_count(one[:, :, None] ^ other[:, None]).min(axis=(1, 2)) <= RADIUS).all()


@pytest.mark.parametrize("bits", [0, 1, 4])
def test_of_many_similar_pictures_each_is_compared_with_few(bits):
    """Comparing all with all would take hours and gigabytes; the pairs still connect all pictures."""
    count, generator = 600, np.random.default_rng(bits)
    hashes = np.repeat(generator.integers(0, 2**64, (1, 4), np.uint64), count, axis=0)
    for _ in range(bits):
        hashes ^= np.uint64(1) << generator.integers(0, 64, hashes.shape).astype(np.uint64)
    hashes[-1], hashes[-2] = hashes[17], hashes[18]  # the nearest of all come first, whoever else is near
    pairs = propose_pairs(hashes)
    assert len(pairs) <= NEAREST * count
    assert np.bincount(pairs.ravel(), minlength=count).min() >= min(NEAREST, 8)
    assert len(set(cluster_numbers(count, pairs.tolist()))) == 1
    if bits == 4:
        assert {(17, count - 1), (18, count - 2)} <= {tuple(pair) for pair in pairs.tolist()}
        assert (propose_pairs(hashes) == pairs).all()


def test_every_pair_of_a_few_similar_pictures_is_proposed():
    hashes = np.tile(np.array([0, 2**64 - 1, 1, 2**64 - 2], np.uint64), (NEAREST, 1))
    assert len(propose_pairs(hashes)) == NEAREST * (NEAREST - 1) // 2


def test_no_pairs_for_few_or_different_pictures():
    assert propose_pairs(np.zeros((0, 4), np.uint64)).shape == (0, 2)
    assert propose_pairs(np.zeros((1, 4), np.uint64)).shape == (0, 2)
    assert propose_pairs(np.zeros((3, 4), np.uint64)).tolist() == [[0, 1], [0, 2], [1, 2]]
