"""Simulate studies with known differences, and measure the coverage of their intervals.

An image is right if a latent number is above 0: the sum of the recipe's skill, the ease of the image (overall, for the
strategy and for the regime), an effect of the seed (in all cells, and in this cell), and noise. All but the skill are
normal and drawn anew for every study, so the true difference of two recipes is known.

    python -m tests.support.simulated        prints the table of docs/statistics.md
"""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from unfreeze.statistics.intervals import LEVEL, CrossedMean, crossed_mean, half_width, simultaneous_intervals

CHUNK = 100


@dataclass(frozen=True)
class World:
    """Standard deviations of the parts of the latent number.

    Attributes:
        seed: effect of the seed in one cell, multiplied by the strategy's entry in ``unlike``.
        shared_seed: effect of the seed in all cells, such as that of its subset of training images.
        skills: (strategies, regimes) means; None makes them equal.
    """

    seed: float = 0.15
    shared_seed: float = 0.1
    unlike: tuple[float, ...] = (1.0, 1.0, 1.0)
    skills: tuple[tuple[float, ...], ...] | None = None
    regimes: int = 3
    image: float = 1.2
    for_strategy: float = 0.6
    for_regime: float = 0.4
    chance: float = 0.5

    @property
    def skill(self) -> NDArray[np.float64]:
        """(strategies, regimes)."""
        return np.array(self.skills) if self.skills else np.full((len(self.unlike), self.regimes), 0.8)

    @property
    def truth(self) -> NDArray[np.float64]:
        """Expected accuracy, (strategies, regimes)."""
        effect = (self.seed * np.array(self.unlike)) ** 2 + self.shared_seed**2
        rest = self.image**2 + self.for_strategy**2 + self.for_regime**2 + self.chance**2
        return stats.norm.cdf(self.skill / np.sqrt(effect + rest)[:, None])


DIFFERENT = ((0.2, 0.5, 0.8), (0.7, 1.0, 1.3), (0.8, 1.2, 1.6))
WORLDS = {
    "seeds vary by 3.5 points": World(),
    "seeds do not matter": World(seed=0.0, shared_seed=0.0),
    "seeds vary by 9 points": World(seed=0.4),
    "seeds vary by 9 points in one strategy, else 2": World(seed=0.1, unlike=(4.0, 1.0, 1.0)),
    "two strategies, one regime": World(unlike=(1.0, 1.0), regimes=1),
    "six strategies, one regime": World(unlike=(1.0,) * 6, regimes=1),
    "three strategies, seeds vary ten times as much in one": World(seed=0.1, unlike=(10.0, 1.0, 1.0), regimes=1),
    "known differences": World(skills=DIFFERENT),
    "known differences, seeds vary by 9 points": World(seed=0.4, skills=DIFFERENT),
}


def simulate(world: World, studies: int, seeds: int, images: int, draw: int) -> Iterator[NDArray[np.bool_]]:
    """Yield whether images are right, (studies, strategies, regimes, seeds, images), in chunks."""
    generator = np.random.default_rng([draw, seeds, images])

    def normal(*shape: int) -> NDArray[np.float32]:
        return generator.standard_normal(shape, dtype=np.float32)

    strategies, regimes = world.skill.shape
    effect = (world.seed * np.array(world.unlike, dtype=np.float32))[None, :, None, None, None]
    for start in range(0, studies, CHUNK):
        n = min(CHUNK, studies - start)
        latent = world.chance * normal(n, strategies, regimes, seeds, images)
        latent += world.skill.astype(np.float32)[None, :, :, None, None]
        latent += world.image * normal(n, 1, 1, 1, images)
        latent += world.for_strategy * normal(n, strategies, 1, 1, images)
        latent += world.for_regime * normal(n, 1, regimes, 1, images)
        latent += world.shared_seed * normal(n, 1, 1, seeds, 1)
        latent += effect * normal(n, strategies, regimes, seeds, 1)
        yield latent > 0


@dataclass(frozen=True)
class Measured:
    """Shares over the studies and their comparisons.

    Attributes:
        covered: single intervals that contain the true difference.
        covered_images: the same of intervals over images alone, of the mean over seeds.
        covered_bootstrap: the same of a percentile bootstrap over seeds and images; NaN unless it is requested.
        wrong: studies in which any simultaneous interval misses its true difference.
        wrong_plain: the same of Satterthwaite's intervals at Bonferroni's level.
        found: differences of 5 points and more that the simultaneous interval finds; NaN where there are none.
        half: mean half-width of single intervals.
        half_simultaneous: mean half-width of simultaneous ones.
    """

    covered: float
    covered_images: float
    covered_bootstrap: float
    wrong: float
    wrong_plain: float
    found: float
    half: float
    half_simultaneous: float


def measure(
    world: World, seeds: int, images: int, studies: int = 1000, draw: int = 2026, bootstrap: bool = False
) -> Measured:
    """Simulate studies, make all of their comparisons, and count."""
    strategies, regimes = world.skill.shape
    pairs = [((a, r), (b, r)) for r in range(regimes) for a, b in itertools.combinations(range(strategies), 2)]
    pairs += [((k, a), (k, b)) for k in range(strategies) for a, b in itertools.combinations(range(regimes), 2)]
    truth = np.array([world.truth[a] - world.truth[b] for a, b in pairs])[:, None]
    collected: dict[str, list[Any]] = {
        name: [] for name in ("off", "half", "joint", "plain", "images", "bootstrap", "mean")
    }
    for right in simulate(world, studies, seeds, images, draw):
        numbers = right.astype(np.float32)
        values = [numbers[:, *a] - numbers[:, *b] for a, b in pairs]
        family: list[CrossedMean] = [crossed_mean(one) for one in values]
        parts = simultaneous_intervals(family, strategies * regimes, floor=1.0)
        means = np.array([one.mean for one in family])
        collected["mean"].append(means)
        collected["off"].append(np.abs(means - truth))
        collected["half"].append([half_width(one, 1 / images) for one in family])
        collected["plain"].append([half_width(one, 1 / images, LEVEL / len(pairs)) for one in family])
        collected["joint"].append([part.half for part in parts if part is not None])
        collected["images"].append([1.96 * np.sqrt(one.ms_image / (seeds * images)) for one in family])
        if bootstrap:
            collected["bootstrap"].append(_bootstrapped(values, truth, draw))
    off, half, joint, plain, alone, mean = (
        np.concatenate(collected[name], axis=1) for name in ("off", "half", "joint", "plain", "images", "mean")
    )
    large = np.broadcast_to(np.abs(truth) >= 0.05, off.shape)
    return Measured(
        covered=float((off <= half).mean()),
        covered_images=float((off <= alone).mean()),
        covered_bootstrap=float(np.mean(collected["bootstrap"])) if bootstrap else float("nan"),
        wrong=float((off > joint).any(axis=0).mean()),
        wrong_plain=float((off > plain).any(axis=0).mean()),
        found=float((np.abs(mean) > joint)[large].mean()) if large.any() else float("nan"),
        half=float(half.mean()),
        half_simultaneous=float(joint.mean()),
    )


def _bootstrapped(values: list[NDArray[np.float32]], truth: NDArray[np.float64], draw: int, draws: int = 200) -> float:
    """Return the share of percentile intervals over resampled seeds and images that contain the truth."""
    generator = np.random.default_rng(draw)
    studies, seeds, images = values[0].shape
    by_seed = generator.multinomial(seeds, [1 / seeds] * seeds, draws).astype(np.float32) / seeds
    by_image = generator.multinomial(images, [1 / images] * images, draws).astype(np.float32) / images
    held = []
    for one, true in zip(values, truth[:, 0], strict=True):
        means = np.einsum("bs,nsb->nb", by_seed, one @ by_image.T)
        low, high = np.quantile(means, [0.025, 0.975], axis=1)
        held.append(((low <= true) & (true <= high)).mean())
    return float(np.mean(held))


def main() -> None:
    """Print the table."""
    print("| studies | seeds | images | one interval | images alone | bootstrap | wrong anywhere | half-widths |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for name, world in WORLDS.items():
        for seeds, images in ((3, 150), (3, 500), (5, 150), (5, 500), (10, 150), (10, 500)):
            found = measure(world, seeds, images, bootstrap=True)
            shares = [found.covered, found.covered_images, found.covered_bootstrap, found.wrong]
            widths = f"{100 * found.half:.1f}, {100 * found.half_simultaneous:.1f}"
            print(
                f"| {name} | {seeds} | {images} | " + " | ".join(f"{100 * s:.1f} %" for s in shares),
                end=f" | {widths} |\n",
                flush=True,
            )


if __name__ == "__main__":
    main()
