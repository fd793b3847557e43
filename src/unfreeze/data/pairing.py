"""Pairs of pictures of which a perceptual hash is near one of the other's, without comparing each with each."""

from collections.abc import Iterator
from math import ceil, comb, log

import numpy as np

RADIUS = 10
"""Hashes that differ in more of their 64 bits do not propose a pair."""
MISSED = 0.01
"""Share of the hashes just at the radius that may be missed; of nearer ones, and of pairs near in two, far less."""

_ASKING = (0, 2)  # hashes of each picture that are looked for among all four of the others: the two upright ones
_AT_ONCE = 4_000_000  # pairs in memory while they are looked at


def proposed(hashes: np.ndarray, radius: int = RADIUS) -> np.ndarray:
    """Return the pairs, (m, 2) int64 with first below second, of which a hash of one is near a hash of the other.

    Locality-sensitive hashing (Indyk and Motwani 1998, "Approximate nearest neighbors: towards removing the curse of
    dimensionality") with one probe for each bit (Lv et al. 2007, "Multi-probe LSH"): keys are some of the 64 bits,
    about as many as tell all hashes apart, so that few hashes share one by chance however many there are; only those
    are compared of which a key agrees but for one bit. There are as many keys as miss no more than ``MISSED``.

    Args:
        hashes: (n, 4) uint64, see ``Likeness.hashes``.
        radius: bits, of 64, in which near hashes may differ.
    """
    count = len(hashes)
    offered = hashes.ravel()
    owners, which = np.divmod(np.arange(hashes.size), hashes.shape[1])
    asks = np.isin(which, _ASKING)
    found = [np.empty(0, np.int64)]
    width = min(22, max(8, (8 * count).bit_length()))
    for bits in _chosen(width, radius):
        keys = _keys(offered, bits)
        # One number for key and place: numpy sorts numbers some times faster than it sorts places by numbers.
        order = np.sort(keys.astype(np.int64) << 32 | np.arange(len(keys))) & 0xFFFFFFFF
        askers = order[asks[order]]  # in the order of their keys, so that memory is read in its order
        counts = np.bincount(keys, minlength=1 << width).astype(np.int32)
        starts = (np.cumsum(counts) - counts).astype(np.int32)
        asked, asking, listed = keys[askers], offered[askers], offered[order]
        for flipped in (0, *(1 << place for place in range(width))):
            wanted = asked ^ np.int32(flipped)
            many = counts[wanted]
            some = np.flatnonzero(many)
            many, low = many[some], starts[wanted[some]]
            for one, end in _parts(many):
                ends = np.cumsum(many[one:end])
                places = np.arange(ends[-1]) + np.repeat(low[one:end] - (ends - many[one:end]), many[one:end])
                apart = np.repeat(asking[some[one:end]], many[one:end]) ^ listed[places]
                near = np.flatnonzero(np.bitwise_count(apart) <= radius)
                asker = some[one:end][np.searchsorted(ends, near, side="right")]
                first, second = owners[askers[asker]], owners[order[places[near]]]
                pairs = np.minimum(first, second) * count + np.maximum(first, second)
                found.append(np.unique(pairs[first != second]))
    return np.stack(np.divmod(np.unique(np.concatenate(found)), max(1, count)), axis=1)


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
