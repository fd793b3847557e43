"""Simulate what the rule of recommendation costs and saves, with a known best recipe (docs/statistics.md).

    python bench/selection.py                 prints the table; about ten minutes of one core
    python bench/selection.py --point 0.02    the same with another cap than one point

Six recipes, cheap to expensive in their order: of 1 to 6 billion multiply-adds. A ranking image is right if a latent
number is above 0: the sum of the recipe's skill, the ease of the image (overall, for this recipe and for this
candidate), an effect of the cell, and noise, all normal and drawn anew for each study. The second, fourth and sixth
recipe select one of 15 candidates in each cell by the ranking images. All candidates have the same skill, so selection
only makes their scores optimistic. Their values are cross-fitted by ``unfreeze.statistics.crossfit``, and ``choose``
recommends.

Regret is the accuracy of the best recipe minus that of the recommended one, expected over images and seeds.
"""

import argparse
import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from scipy.optimize import brentq

from unfreeze.statistics import selection
from unfreeze.statistics.crossfit import CandidateEpochs, cross_fitted, halves
from unfreeze.statistics.predictions import Recipe
from unfreeze.statistics.selection import Contender, choose

WORLDS = {
    "all 92 %": (0.92,) * 6,
    "93 down to 90 %": tuple(np.linspace(0.93, 0.90, 6)),
    "85 up to 93 %": tuple(np.linspace(0.85, 0.93, 6)),
    "88 up to 93 %": tuple(np.linspace(0.88, 0.93, 6)),
}
IMAGES, SEEDS, SPREADS = (37, 100, 380), (1, 2, 3, 5), (0.01, 0.035)
CANDIDATES = 15
IMAGE, FOR_RECIPE, FOR_CANDIDATE, CHANCE = 1.2, 0.6, 0.4, 0.5
"""Standard deviations of the latent number, as in tests/support/simulated.py: of the image, of the image for this
recipe in all seeds, for this candidate in all seeds, and in this cell."""
REST = float(np.sqrt(IMAGE**2 + FOR_RECIPE**2 + FOR_CANDIDATE**2 + CHANCE**2))
NODES, WEIGHTS = np.polynomial.hermite_e.hermegauss(40)


@dataclass(frozen=True)
class Study:
    """A simulated study: the ranked recipes, and their mean scores without cross-fitting."""

    contenders: list[Contender]
    biased: list[float]


@dataclass(frozen=True)
class Measured:
    """Means over the studies.

    Attributes:
        cheapest: share in which the cheapest recipe is recommended.
        regret: of the rule.
        regret_mean: of the highest mean of the same values.
        regret_biased: of the highest mean without cross-fitting.
    """

    cheapest: float
    regret: float
    regret_mean: float
    regret_biased: float


def cell_spread(accuracy: float, spread: float) -> float:
    """Return the standard deviation of a cell's effect that gives its accuracy the standard deviation ``spread``."""

    def off(effect: float) -> float:
        cells = stats.norm.cdf((stats.norm.ppf(accuracy) * np.hypot(REST, effect) + effect * NODES) / REST)
        return float(np.sqrt(np.average((cells - accuracy) ** 2, weights=WEIGHTS)) - spread)

    return float(brentq(off, 1e-6, 3))


def simulate(accuracies: tuple[float, ...], spread: float, seeds: int, images: int, studies: int) -> Iterator[Study]:
    """Yield studies in which each recipe has its expected accuracy."""
    generator = np.random.default_rng([seeds, images, round(1000 * spread)])
    effect = np.array([cell_spread(accuracy, spread) for accuracy in accuracies])
    skill = stats.norm.ppf(accuracies) * np.hypot(REST, effect)
    labels, half = np.zeros(images, dtype=np.int64), halves([f"image {number}" for number in range(images)])

    def normal(*shape: int) -> NDArray[np.float32]:
        return generator.standard_normal(shape, dtype=np.float32)

    for _ in range(studies):
        easy = IMAGE * normal(images)
        contenders, biased = [], []
        for place in range(len(accuracies)):
            tried = CANDIDATES if place % 2 else 1
            latent = skill[place] + effect[place] * normal(seeds, 1, 1) + easy + FOR_RECIPE * normal(images)
            right = latent + FOR_CANDIDATE * normal(tried, images) + CHANCE * normal(seeds, tried, images) > 0
            cells = [_cross_fitted(cell, labels, half) if tried > 1 else cell[0] for cell in right]
            values = np.array(cells, dtype=np.float64)
            cost = (place + 1) * 10**9, (place + 1) * 10**6
            recipe = Recipe(f"recipe {place + 1}", "full")
            contenders.append(Contender(recipe, 1000, *cost, values, tuple(range(seeds)), True))
            biased.append(float(right.mean(axis=-1).max(axis=-1).mean()))
        yield Study(contenders, biased)


def _cross_fitted(cell: NDArray[np.bool_], labels: NDArray[np.int64], half: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return (images,) whether the candidate that the other half selects is right; cell is (candidates, images)."""
    logits = np.stack([cell, ~cell], axis=-1).astype(np.float32)
    tried = {str(number): CandidateEpochs(one[None], np.zeros(1)) for number, one in enumerate(logits)}
    found = cross_fitted(tried, labels, half, None, "accuracy")
    if found is None:
        raise ValueError("a half is empty")
    return found.argmax(axis=1) == labels


def measure(accuracies: tuple[float, ...], spread: float, seeds: int, images: int, studies: int) -> Measured:
    """Simulate studies, recommend in each, and average."""
    units = np.array([f"image {number}" for number in range(images)])
    truth = np.array(accuracies)
    taken = []
    for study in simulate(accuracies, spread, seeds, images, studies):
        choice = choose(study.contenders, units)
        taken.append((choice.recommended, choice.order[0], int(np.argmax(study.biased))))
    places = np.array(taken)
    regret = (truth.max() - truth[places]).mean(axis=0)
    return Measured(float((places[:, 0] == 0).mean()), *map(float, regret))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--studies", type=int, default=1000)
    parser.add_argument(
        "--point", type=float, default=selection.POINT, help="cap of what a cheaper recipe may be worse"
    )
    given = parser.parse_args()
    selection.POINT = given.point
    print("| world | seed sd | images | seeds | cheapest | regret | best mean | biased |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for (name, accuracies), spread, images, seeds in itertools.product(WORLDS.items(), SPREADS, IMAGES, SEEDS):
        found = measure(accuracies, spread, seeds, images, given.studies)
        regrets = [found.regret, found.regret_mean, found.regret_biased]
        cells = [name, f"{100 * spread:g}", str(images), str(seeds), f"{100 * found.cheapest:.1f} %"]
        print("| " + " | ".join([*cells, *(f"{100 * one:.2f}" for one in regrets)]) + " |", flush=True)


if __name__ == "__main__":
    main()
