"""Propose pairs of pictures whose perceptual hashes are near each other, without comparing each with each."""

from collections.abc import Iterator
from math import ceil, comb, log, log2

import numpy as np

RADIUS = 10
"""Hashes that differ in more of their 64 bits do not propose a pair."""
MISSED = 0.01
"""Share of the hashes just at the radius that may be missed; of nearer ones, and of pairs near in two, far less."""
NEAREST = 16
"""Most neighbours that a picture proposes: thousands of a film's frames are near each other."""

_ASKING = (0, 2)  # columns of the upright hashes: one hash at least of a proposed pair is one of them
_APART = 7  # bits that hold how far two hashes are apart
_KEY = 32  # bits by which hashes are sorted
_OF_BYTE = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1, bitorder="little").astype(np.int64)


def proposed(hashes: np.ndarray, radius: int = RADIUS) -> np.ndarray:
    """Return the pairs, (m, 2) int64 with first below second, of which a hash of one is near a hash of the other.

    All hashes are sorted by some of their bits in random order, several times, and each is compared with those that
    follow it (Charikar 2002, "Similarity estimation techniques from rounding algorithms"): the work grows with the
    number of pictures and not with its square, also where thousands are alike. Always the same pairs are found.

    Args:
        hashes: (n, m) uint64: those of ``Likeness.hashes``, and of further orientations.
        radius: bits, of 64, in which near hashes may differ.
    """
    count, ways = hashes.shape
    flat = hashes.ravel()
    places = np.arange(len(flat))
    owners, asks = places // max(1, ways), np.isin(places % max(1, ways), _ASKING)
    found = np.empty(0, np.int64)
    for keys in _keys(flat, radius):
        order = np.sort(keys << _KEY | places) & (1 << _KEY) - 1  # faster than argsort, and without ties
        ordered, fresh = flat[order], [found]
        for step in range(1, min(NEAREST, len(order) - 1) + 1):
            apart = np.bitwise_count(ordered[:-step] ^ ordered[step:])
            near = np.flatnonzero(apart <= radius)
            one, other = order[near], order[near + step]
            first, second = np.minimum(owners[one], owners[other]), np.maximum(owners[one], owners[other])
            pairs = (first * count + second) << _APART | apart[near]
            fresh.append(pairs[(first != second) & (asks[one] | asks[other])])
        found = _nearest(np.concatenate(fresh), count)
    return np.stack(np.divmod(found >> _APART, max(1, count)), axis=1)


def _keys(hashes: np.ndarray, radius: int) -> Iterator[np.ndarray]:
    """Yield, for each sorting, a key of each hash, int64: ``_KEY`` of its bits in an order of their own.

    Two hashes that agree in the first bits, as many as leave ``NEAREST`` hashes a key, follow each other. There are as
    many keys as miss no more than ``MISSED`` of those that differ in ``radius`` bits.
    """
    first = max(8, ceil(log2(max(1, len(hashes)) / NEAREST)))
    hit = comb(64 - radius, first) / comb(64, first)
    octets = hashes.astype("<u8")[:, None].view(np.uint8)
    generator = np.random.default_rng(0)
    for _ in range(ceil(log(MISSED) / log(1 - hit))):
        weights = np.zeros(64, np.int64)
        weights[generator.permutation(64)[:_KEY]] = 1 << np.arange(_KEY - 1, -1, -1)
        table = _OF_BYTE @ weights.reshape(8, 8).T  # by value and place of a byte: its share of the key
        yield sum((table[:, place][octets[:, place]] for place in range(8)), np.zeros(len(hashes), np.int64))


def _nearest(found: np.ndarray, count: int) -> np.ndarray:
    """Return, in order, those pairs that are among the ``NEAREST`` of either of their pictures, each once.

    Args:
        found: int64, pairs as numbers: the first picture times ``count`` plus the second, and behind, in ``_APART``
            bits, how far their hashes are apart, the least of which counts.
        count: pictures in all.
    """
    found = np.unique(found)
    found = found[np.unique(found >> _APART, return_index=True)[1]]
    first, second = np.divmod(found >> _APART, max(1, count))
    owners = np.concatenate([first, second])
    order = np.lexsort((np.concatenate([second, first]), np.tile(found & (1 << _APART) - 1, 2), owners))
    ranks = np.arange(len(order)) - np.searchsorted(owners[order], owners[order])
    return found[np.unique(order[ranks < NEAREST] % max(1, len(found)))]
