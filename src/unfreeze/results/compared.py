"""One comparison of two fields, seen from either side, and what it says in words."""

import math
from dataclasses import dataclass

import pandas as pd

from unfreeze.results.comparisons import IMAGES_ONLY, NOTHING, REGIME, STRATEGY, turn
from unfreeze.results.predictions import Field
from unfreeze.results.verdicts import TOO_LITTLE
from unfreeze.results.words import difference_text


@dataclass(frozen=True)
class Compared:
    """A field minus another, on a test set.

    Attributes:
        field, other: strategy and regime of both.
        metric: the study's.
        difference: in units of the metric.
        low, high: simultaneous 95 % interval; at one seed the one taken alone, over images; NaN where there is none.
        verdict: on ``field``, of ``results.verdicts``.
        helps: what would settle it; "" where it is settled.
        seeds: that both have.
        images: test images that all of them predict.
        basis: of ``results.comparisons``.
    """

    field: Field
    other: Field
    metric: str
    difference: float
    low: float
    high: float
    verdict: str
    helps: str
    seeds: int
    images: int
    basis: str

    @property
    def effect(self) -> str:
        """The difference with its interval and what it rests on."""
        if self.basis == NOTHING:
            return "no seed in common"
        rests = ", over images alone" if self.basis == IMAGES_ONLY else ""
        return f"{difference_text(self.metric, self.difference, self.low, self.high)}{rests}"


def compared(comparisons: pd.DataFrame, field: Field, other: Field, test: str) -> Compared | None:
    """Return the study's comparison of two fields; None where it makes none, as where they differ in both.

    Args:
        comparisons: the table of ``comparisons_table``.
        field, other: strategy and regime.
        test: name of the test set.
    """
    if (field[0] == other[0]) == (field[1] == other[1]):
        return None
    kind, place = (STRATEGY, 0) if field[1] == other[1] else (REGIME, 1)
    of_kind = (
        (comparisons["kind"] == kind) & (comparisons["within"] == field[1 - place]) & (comparisons["test"] == test)
    )
    own = comparisons[of_kind]
    for a, b in ((field, other), (other, field)):
        found = own[(own["a"] == a[place]) & (own["b"] == b[place])]
        if len(found):
            row = (found if a == field else turn(found)).iloc[0]
            bounds = ("low_simultaneous", "high_simultaneous")
            if not math.isfinite(row["low_simultaneous"]):
                bounds = ("low", "high")
            return Compared(
                field=field,
                other=other,
                metric=str(row["metric"]),
                difference=float(row["difference"]),
                low=float(row[bounds[0]]),
                high=float(row[bounds[1]]),
                verdict=str(row["verdict"]),
                helps=str(row["helps"]),
                seeds=int(row["seeds"]),
                images=int(row["images"]),
                basis=str(row["basis"]),
            )
    return None


def settle_text(found: Compared) -> str:
    """Say what would settle a comparison, as a clause that ends a sentence; "" where it is settled."""
    return f"; to settle it: {found.helps}" if found.verdict == TOO_LITTLE and found.helps else ""
