"""What the finished cells predicted for test images and for the ranking set: read once, as plain arrays."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from unfreeze.metrics import Labels, Logits, per_image
from unfreeze.storage.records import read_json, read_table, read_tensors
from unfreeze.storage.study_dir import StudyDir


class Recipe(NamedTuple):
    """A strategy with a regime: what a study compares and recommends."""

    strategy: str
    regime: str

    def __str__(self) -> str:
        """Name the recipe in a sentence."""
        return f"{self.strategy} with {self.regime}"


@dataclass(frozen=True)
class Prediction:
    """One finished cell on one named test set.

    Attributes:
        cell: id of the cell; strategy, regime, seed and fold are its own.
        test: name of the test set: test, or one of the study's further ones.
        ids: (n,) text.
        labels: (n,) numbers of classes.
        logits: (n, classes).
        units: (n,) text: the image's group, or the copies of one picture that it belongs to, or the image alone.
            Images of one unit are no independent evidence.
    """

    cell: str
    strategy: str
    regime: str
    seed: int
    fold: int | None
    test: str
    ids: NDArray[np.str_]
    labels: Labels
    logits: Logits
    units: NDArray[np.str_]

    @property
    def recipe(self) -> Recipe:
        """Strategy and regime of the cell."""
        return Recipe(self.strategy, self.regime)


@dataclass(frozen=True)
class Predictions:
    """All test predictions of a study.

    Attributes:
        metric: the study's metric.
        classes: names of the classes, in the order of the logits.
        folds: how many folds each run has; 1 without folds.
        cells: in plan order, test sets as each cell's file names them.
        recipes: strategies and regimes as planned.
    """

    metric: str
    classes: tuple[str, ...]
    folds: int
    cells: tuple[Prediction, ...]
    recipes: tuple[Recipe, ...]

    @cached_property
    def tests(self) -> tuple[str, ...]:
        """Names of the test sets, ``test`` first."""
        names = dict.fromkeys(one.test for one in self.cells)
        return tuple(sorted(names, key=lambda name: name != "test"))

    def runs(self, recipe: Recipe, test: str, metric: str) -> dict[int, pd.DataFrame]:
        """Return each seed's number an image, by seed: columns unit and value, indexed by image id.

        With folds a run is the union of its folds, and counts once all of them have finished. Its score is the mean of
        the folds' scores, weighted by their images; an image that several folds predict gets the mean of its numbers.
        Runs in which the metric is not defined (a logit that is no number) are there, with NaN.
        """
        found: dict[int, list[pd.DataFrame]] = {}
        for one in self.cells:
            if one.recipe == recipe and one.test == test:
                values = per_image(metric, one.logits, one.labels)
                found.setdefault(one.seed, []).append(
                    pd.DataFrame({"unit": one.units, "value": values}, index=pd.Index(one.ids, name="id"))
                )
        return {seed: _union(parts) for seed, parts in found.items() if len(parts) == self.folds}


@dataclass(frozen=True)
class Ranking:
    """What recipes are ranked by.

    Attributes:
        predictions: of the validation pool, under the test set's name ``validation``; a choice on validation that could
            be paid for is (``study.finish``). Cells of earlier versions have those of their validation images alone.
        unpaid: recipes of which some cell chose on validation what was not paid for.
    """

    predictions: Predictions
    unpaid: frozenset[Recipe]


def read_predictions(study: StudyDir) -> Predictions:
    """Read the test logits of every finished cell.

    Raises:
        UserError: the directory holds no study, or a record cannot be read.
    """
    return _read(study, lambda cell: _tests(study, cell))


def read_ranking(study: StudyDir) -> Ranking:
    """Read what every finished cell predicted of the ranking set.

    Raises:
        UserError: the directory holds no study, or a record cannot be read.
    """
    ranked = {str(cell["cell"]): _ranked(study, cell) for cell in study.planned_cells() if study.is_finished(cell)}
    predictions = _read(study, lambda cell: [("validation", *ranked[str(cell["cell"])][:2])])
    unpaid = {one.recipe for one in predictions.cells if not ranked[one.cell][2]}
    return Ranking(predictions, frozenset(unpaid))


Stored = tuple[str, Sequence[str], Logits]
"""Name of a set of images, their ids, logits (n, classes)."""


def _read(study: StudyDir, stored: Callable[[Mapping[str, Any]], Iterable[Stored]]) -> Predictions:
    planned = study.planned_cells()
    record = read_json(study.path / "study.json")
    classes = tuple(map(str, record["classes"]))
    recipes = tuple(dict.fromkeys(Recipe(str(cell["strategy"]), str(cell["regime"])) for cell in planned))
    folds = len({cell.get("fold") for cell in planned}) or 1
    cells: list[Prediction] = []
    finished = [cell for cell in planned if study.is_finished(cell)]
    if finished:
        about = _about(read_table(study.path / "catalog.csv"), classes)
        cells = [_of_cell(cell, about, *one) for cell in finished for one in stored(cell)]
    return Predictions(str(record["metric"]), classes, folds, tuple(cells), recipes)


def _tests(study: StudyDir, cell: Mapping[str, Any]) -> Iterable[Stored]:
    scores, told = read_tensors(study.cell(cell["cell"]) / "logits.safetensors")
    return [(test, told["ids"][test], logits) for test, logits in scores.items() if test != "validation"]


def _ranked(study: StudyDir, cell: Mapping[str, Any]) -> tuple[Sequence[str], Logits, bool]:
    """Return ids and logits of a cell's ranking set, and whether what validation chose is paid for."""
    folder = study.cell(cell["cell"])
    if (folder / "ranking.safetensors").is_file():
        scores, told = read_tensors(folder / "ranking.safetensors")
        return told["ids"]["ranking"], scores["ranking"], bool(told["paid"])
    scores, told = read_tensors(folder / "logits.safetensors")
    tried = read_json(folder / "cell.json")["candidates"]
    stops = [one.get("early_stopping") for one in tried.values()]
    chose = len(tried) > 1 or any(stop and stop["monitor"] != "train_loss" for stop in stops)
    return told["ids"]["validation"], scores["validation"], not chose


def _about(catalog: pd.DataFrame, classes: Iterable[str]) -> pd.DataFrame:
    """Return number of the class and unit by image id."""
    numbers = {label: number for number, label in enumerate(classes)}
    used = catalog.drop_duplicates("id").set_index("id")
    unit = pd.Series(used.index, index=used.index).map("image {}".format)
    for column in ("cluster", "group"):
        if column in used.columns:
            named = used[column].map(str)
            unit = unit.where(named == "", f"{column} " + named)
    return pd.DataFrame({"label": used["label"].map(numbers), "unit": unit})


def _of_cell(cell: Mapping[str, Any], about: pd.DataFrame, test: str, ids: Sequence[str], logits: Logits) -> Prediction:
    rows = about.loc[list(ids)]
    fold = cell.get("fold")
    return Prediction(
        cell=str(cell["cell"]),
        strategy=str(cell["strategy"]),
        regime=str(cell["regime"]),
        seed=int(cell["seed"]),
        fold=None if fold is None else int(fold),
        test=test,
        ids=np.array(ids, dtype=np.str_),
        labels=rows["label"].to_numpy(np.int64),
        logits=logits,
        units=rows["unit"].to_numpy(dtype=np.str_),
    )


def _union(parts: list[pd.DataFrame]) -> pd.DataFrame:
    if len(parts) == 1:
        return parts[0]
    every = pd.concat(parts)
    return every.groupby(level=0, sort=False).agg({"unit": "first", "value": "mean"})
