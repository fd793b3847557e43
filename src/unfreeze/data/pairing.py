"""Pairs of pictures of which a perceptual hash is near one of the other's, without comparing each with each."""

from collections.abc import Iterator
from math import ceil, comb, log
from typing import NamedTuple

import numpy as np

RADIUS = 10
"""Hashes that differ in more of their 64 bits do not propose a pair."""
MISSED = 0.01
"""Share of the hashes just at the radius that may be missed; of nearer ones, and of pairs near in two, far less."""

NEAREST = 16
"""Of the pictures near one, so many are proposed: thousands of a film's frames are near each other."""

_ASKING = (0, 2)  # hashes of each picture that are looked for among all of the others: the two upright ones
_AT_ONCE = 4_000_000  # pairs in memory while they are looked at
_PROBED = 100_000  # keys looked up at once
_CROWD = 2 * NEAREST  # hashes of one key with which one that asks is compared
_APART = 7  # bits in which it is kept how far two hashes are apart


def proposed(hashes: np.ndarray, radius: int = RADIUS) -> np.ndarray:
    """Return the pairs, (m, 2) int64 with first below second, of which a hash of one is near a hash of the other.

    Locality-sensitive hashing (Indyk and Motwani 1998, "Approximate nearest neighbors: towards removing the curse of
    dimensionality") with one probe for each bit (Lv et al. 2007, "Multi-probe LSH"): keys are some of the 64 bits,
    about as many as tell all hashes apart, so that few hashes share one by chance however many there are; only those
    are compared of which a key agrees but for one bit. There are as many keys as miss no more than ``MISSED``.

    Where many hashes share a key though, as those of frames of one scene, those are compared that follow each other in
    the order of all, and of a picture's pairs none is proposed that is neither among its ``NEAREST`` nor among the
    other's. So the work grows with the number of pictures and not with its square.

    Args:
        hashes: (n, m) uint64: those of ``Likeness.hashes``, and of further orientations.
        radius: bits, of 64, in which near hashes may differ.
    """
    count = len(hashes)
    places_of = np.argsort(hashes, axis=None, kind="stable")
    offered = hashes.ravel()[places_of]
    owners, which = np.divmod(places_of, hashes.shape[1])
    asks = np.isin(which, _ASKING)
    found, held = [np.empty(0, np.int64)], 0
    for bits in _chosen(min(22, max(8, (2 * hashes.size).bit_length())), radius):
        table = _table(offered, bits)
        askers = table.order[asks[table.order]]  # in the order of their keys, so that memory is read in its order
        asking, listed = offered[askers], offered[table.order]
        for place, low, many in _probed(offered, table, askers, bits):
            for one, end in _parts(many):
                ends = np.cumsum(many[one:end])
                places = np.arange(ends[-1]) + np.repeat(low[one:end] - (ends - many[one:end]), many[one:end])
                bits_apart = np.bitwise_count(np.repeat(asking[place[one:end]], many[one:end]) ^ listed[places])
                near = np.flatnonzero(bits_apart <= radius)
                first = owners[askers[place[one:end][np.searchsorted(ends, near, side="right")]]]
                second = owners[table.order[places[near]]]
                pairs = (np.minimum(first, second) * count + np.maximum(first, second)) << _APART | bits_apart[near]
                found.append(_distinct(pairs[first != second]))
                held += len(found[-1])
                if held > _AT_ONCE:
                    found = [_nearest(np.concatenate(found), count)]
                    held = len(found[0])
    return np.stack(np.divmod(_nearest(np.concatenate(found), count) >> _APART, max(1, count)), axis=1)


class _Table(NamedTuple):
    """Hashes, here places in the order of all, by their key: int32 of some of their bits.

    Attributes:
        keys: of each hash.
        ordered: int64, sorted: a key, and behind, in 32 bits, the place of a hash that has it.
        order: the places, in the order of their keys.
        counts, starts: by key, how many hashes have it, and where in `order` they begin.
    """

    keys: np.ndarray
    ordered: np.ndarray
    order: np.ndarray
    counts: np.ndarray
    starts: np.ndarray


def _table(hashes: np.ndarray, bits: np.ndarray) -> _Table:
    keys = _keys(hashes, bits)
    # One number for key and place: numpy sorts numbers some times faster than it sorts places by numbers.
    ordered = np.sort(keys.astype(np.int64) << 32 | np.arange(len(keys)))
    counts = np.bincount(keys, minlength=1 << len(bits)).astype(np.int32)
    return _Table(keys, ordered, ordered & 0xFFFFFFFF, counts, (np.cumsum(counts) - counts).astype(np.int32))


def _probed(
    hashes: np.ndarray, table: _Table, askers: np.ndarray, bits: np.ndarray
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Yield which of those that ask, where in ``table.order`` the hashes begin that are near it, and how many, not 0.

    They are those of its key and of each key that differs in one bit; of more than `_CROWD` the ones that would be next
    to it in the order of all.
    """
    flipped = np.concatenate([np.zeros(1, np.uint64), np.uint64(1) << bits.astype(np.uint64)])  # in a hash
    wanted_of = np.concatenate([np.zeros(1, np.int32), np.int32(1) << np.arange(len(bits), dtype=np.int32)])  # in a key
    asked, together = table.keys[askers], max(1, _PROBED // max(1, len(askers)))
    for begin in range(0, len(flipped), together):
        flips = slice(begin, begin + together)
        wanted = asked ^ wanted_of[flips, None]
        many = table.counts[wanted]
        flip, place = np.nonzero(many)
        wanted, many = wanted[flip, place], many[flip, place]
        low = table.starts[wanted]
        crowded = np.flatnonzero(many > _CROWD)
        if len(crowded):
            # Where it would be if its key were the wanted one.
            rank = np.searchsorted(hashes, hashes[askers[place[crowded]]] ^ flipped[flips][flip[crowded]])
            beside = np.searchsorted(table.ordered, wanted[crowded].astype(np.int64) << 32 | rank) - _CROWD // 2
            low[crowded] = np.clip(beside, low[crowded], low[crowded] + many[crowded] - _CROWD)
            many[crowded] = _CROWD
        yield place, low, many


def _nearest(found: np.ndarray, count: int) -> np.ndarray:
    """Return, in order, those pairs that are among the ``NEAREST`` of either of their pictures, each once.

    Args:
        found: int64, pairs as numbers: the first picture times ``count`` plus the second, and behind, in ``_APART``
            bits, how far their hashes are apart, the least of which counts.
        count: pictures in all.
    """
    found = _distinct(found)
    found = found[_begins(found >> _APART)]
    (first, second), apart = np.divmod(found >> _APART, max(1, count)), found & (1 << _APART) - 1
    # A number for each end of each pair: the picture, how far the other is apart, and which it is.
    ends = np.concatenate([(first << _APART | apart) * count + second, (second << _APART | apart) * count + first])
    ends.sort()
    one, other = np.divmod(ends, max(1, count))
    begins = _begins(one >> _APART)
    among = np.arange(len(ends)) - np.repeat(begins, np.diff(begins, append=len(ends))) < NEAREST
    one, other = one[among], other[among]
    pairs = np.minimum(one >> _APART, other) * count + np.maximum(one >> _APART, other)
    return _distinct(pairs << _APART | one & (1 << _APART) - 1)


def _distinct(values: np.ndarray) -> np.ndarray:
    """Return sorted values without repetition; numpy's unique, which hashes, takes some times as long for many."""
    values = np.sort(values)
    return values[_begins(values)]


def _begins(values: np.ndarray) -> np.ndarray:
    """Return where, in sorted values, each that is new begins."""
    return np.flatnonzero(np.diff(values, prepend=values[:1] - 1))


def _chosen(width: int, radius: int) -> Iterator[np.ndarray]:
    """Yield the bits of each key: always the same ones, those of neighbouring keys apart from each other."""
    hit = sum(comb(radius, lost) * comb(64 - radius, width - lost) for lost in (0, 1)) / comb(64, width)
    generator = np.random.default_rng(0)
    for number in range(ceil(log(MISSED) / log(1 - hit))):
        if number % (64 // width) == 0:
            shuffled = generator.permutation(64)
        begin = number % (64 // width) * width
        yield shuffled[begin : begin + width]


def _keys(hashes: np.ndarray, bits: np.ndarray) -> np.ndarray:
    """Return the chosen bits of each hash as a number, int32."""
    keys = np.zeros(len(hashes), np.int32)
    for place, bit in enumerate(bits.tolist()):
        keys |= (hashes >> np.uint64(bit) & np.uint64(1)).astype(np.int32) << np.int32(place)
    return keys


def _parts(counts: np.ndarray) -> Iterator[tuple[int, int]]:
    """Cut a sequence of counts, none of them 0, into stretches of about ``_AT_ONCE`` each."""
    total = np.cumsum(counts)
    cuts = np.searchsorted(total, np.arange(_AT_ONCE, total[-1] if len(total) else 0, _AT_ONCE))
    edges = np.unique([0, *cuts, len(counts)])
    yield from zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True)
