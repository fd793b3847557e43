"""Pairs of pictures of which a perceptual hash is near one of the other's, without comparing each with each."""

from collections.abc import Iterator
from math import ceil, comb, log

import numpy as np

RADIUS = 10
"""Hashes that differ in more of their 64 bits do not propose a pair."""
MISSED = 0.01
"""Share of the hashes just at the radius that may be missed; of nearer ones, and of pairs near in two, far less."""

NEAREST = 16
"""Of the pictures near one, so many are proposed: thousands of a film's frames are near each other."""

_ASKING = (0, 2)  # hashes of each picture that are looked for among all four of the others: the two upright ones
_AT_ONCE = 4_000_000  # pairs in memory while they are looked at
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
        hashes: (n, 4) uint64, see ``Likeness.hashes``.
        radius: bits, of 64, in which near hashes may differ.
    """
    count = len(hashes)
    places_of = np.argsort(hashes, axis=None, kind="stable")
    offered = hashes.ravel()[places_of]
    owners, which = np.divmod(places_of, hashes.shape[1])
    asks = np.isin(which, _ASKING)
    found, held = [np.empty(0, np.int64)], 0
    width = min(22, max(8, (8 * count).bit_length()))
    for bits in _chosen(width, radius):
        keys = _keys(offered, bits)
        # One number for key and place: numpy sorts numbers some times faster than it sorts places by numbers.
        ordered = np.sort(keys.astype(np.int64) << 32 | np.arange(len(keys)))
        order = ordered & 0xFFFFFFFF
        askers = order[asks[order]]  # in the order of their keys, so that memory is read in its order
        counts = np.bincount(keys, minlength=1 << width).astype(np.int32)
        starts = (np.cumsum(counts) - counts).astype(np.int32)
        asked, asking, listed = keys[askers], offered[askers], offered[order]
        for place in (None, *range(width)):
            flipped = 0 if place is None else 1 << place
            wanted = asked ^ np.int32(flipped)
            many = counts[wanted]
            some = np.flatnonzero(many)
            many, low = many[some], starts[wanted[some]]
            crowded = np.flatnonzero(many > _CROWD)
            if len(crowded):
                of = some[crowded]
                bit = np.uint64(0 if place is None else 1 << int(bits[place]))
                rank = np.searchsorted(offered, asking[of] ^ bit)  # where it would be if its key were the wanted one
                beside = np.searchsorted(ordered, wanted[of].astype(np.int64) << 32 | rank) - _CROWD // 2
                low[crowded] = np.clip(beside, low[crowded], low[crowded] + many[crowded] - _CROWD)
                many[crowded] = _CROWD
            for one, end in _parts(many):
                ends = np.cumsum(many[one:end])
                places = np.arange(ends[-1]) + np.repeat(low[one:end] - (ends - many[one:end]), many[one:end])
                apart = np.repeat(asking[some[one:end]], many[one:end]) ^ listed[places]
                bits_apart = np.bitwise_count(apart)
                near = np.flatnonzero(bits_apart <= radius)
                asker = some[one:end][np.searchsorted(ends, near, side="right")]
                first, second = owners[askers[asker]], owners[order[places[near]]]
                pairs = (np.minimum(first, second) * count + np.maximum(first, second)) << _APART | bits_apart[near]
                found.append(_distinct(pairs[first != second]))
                held += len(found[-1])
                if held > _AT_ONCE:
                    found = [_nearest(np.concatenate(found), count)]
                    held = len(found[0])
    return np.stack(np.divmod(_nearest(np.concatenate(found), count) >> _APART, max(1, count)), axis=1)


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
