"""Ways in which a disk damages a file, the same at every call."""

from collections.abc import Iterator

import numpy as np

TRUNCATIONS, FLIPS = 64, 256


def damaged(content: bytes, truncations: int = TRUNCATIONS, flips: int = FLIPS) -> Iterator[bytes]:
    """Yield a file's content cut short, with one bit turned over, and with a tail of zeros as a power cut leaves it."""
    generator = np.random.default_rng(len(content))
    for end in np.unique(np.linspace(0, len(content) - 1, truncations).astype(int)).tolist():
        yield content[:end]
    for bit in generator.integers(0, 8 * len(content), flips).tolist():
        altered = bytearray(content)
        altered[bit // 8] ^= 1 << bit % 8
        yield bytes(altered)
    for kept in (0, len(content) // 2, len(content) - 1):
        zeroed = content[:kept] + bytes(len(content) - kept)
        if zeroed != content:
            yield zeroed
