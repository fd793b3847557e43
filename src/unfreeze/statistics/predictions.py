"""Read what the finished cells predicted for the test images and for the ranking set, as plain arrays."""

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
    """A strategy with a regime: the thing that a study compares and recommends."""

    strategy: str
    regime: str

    def __str__(self) -> str:
        """Return the recipe as sentences name it."""
        return f"{self.strategy} with {self.regime}"


@dataclass(frozen=True)
class Prediction:
    """Predictions of one finished cell for one set of images.

    Attributes:
        cell: id of the cell; strategy, regime, seed and fold are its own.
        test: name of the set: test, or one of the study's further test sets.
        ids: (n,) image ids.
        labels: (n,) class numbers.
        logits: (n, classes).
        units: (n,) name of each image's independent unit: its group, or its cluster of copies, or the image itself.
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
    """Predictions of all finished cells of a study.

    Attributes:
        metric: the metric of the study.
        classes: names of the classes, in the order of the logits.
        folds: number of folds of each run; 1 without folds.
        cells: predictions of each finished cell for each set, in plan order.
        recipes: the planned recipes.
    """

    metric: str
    classes: tuple[str, ...]
    folds: int
    cells: tuple[Prediction, ...]
    recipes: tuple[Recipe, ...]

    @cached_property
    def tests(self) -> tuple[str, ...]:
        """Names of the test sets, ``test`` first."""
        names = dict.fromkeys(cell.test for cell in self.cells)
        return tuple(sorted(names, key=lambda name: name != "test"))

    def runs(self, recipe: Recipe, test: str, metric: str) -> dict[int, pd.DataFrame]:
        """Return a recipe's values per image, by seed: tables with columns unit and value, indexed by image id.

        With folds, a run is the union of its folds and counts when all of them have finished. Its score is the mean of
        the folds' scores, weighted by their numbers of images; an image that several folds predict gets its mean value.
        Where the metric is undefined, such as for a logit that is not a number, values are NaN.
        """
        found: dict[int, list[pd.DataFrame]] = {}
        for cell in self.cells:
            if cell.recipe == recipe and cell.test == test:
                values = per_image(metric, cell.logits, cell.labels)
                found.setdefault(cell.seed, []).append(
                    pd.DataFrame({"unit": cell.units, "value": values}, index=pd.Index(cell.ids, name="id"))
                )
        return {seed: _union(parts) for seed, parts in found.items() if len(parts) == self.folds}


@dataclass(frozen=True)
class RankingSet:
    """Predictions by which recipes are ranked.

    Attributes:
        predictions: for the validation pool, as a set named ``validation``. Choices that a cell made on these images
            are cross-fitted where possible (``study.finish``). Cells of earlier versions have their own validation
            images.
        biased: recipes with a cell whose choices on validation could not be cross-fitted.
    """

    predictions: Predictions
    biased: frozenset[Recipe]


def read_predictions(study: StudyDir) -> Predictions:
    """Read the predictions of every finished cell for the test sets.

    Raises:
        UserError: the directory holds no study, or a record cannot be read.
    """
    return _read(study, lambda cell: _tests(study, cell))


def read_ranking_set(study: StudyDir) -> RankingSet:
    """Read the predictions of every finished cell for the ranking set.

    Raises:
        UserError: the directory holds no study, or a record cannot be read.
    """
    ranked = {str(cell["cell"]): _ranked(study, cell) for cell in study.planned_cells() if study.is_finished(cell)}
    predictions = _read(study, lambda cell: [("validation", *ranked[str(cell["cell"])][:2])])
    biased = {cell.recipe for cell in predictions.cells if not ranked[cell.cell][2]}
    return RankingSet(predictions, frozenset(biased))


Stored = tuple[str, Sequence[str], Logits]
"""Name of a set of images, image ids, and logits (n, classes)."""


def _read(study: StudyDir, stored: Callable[[Mapping[str, Any]], Iterable[Stored]]) -> Predictions:
    planned = study.planned_cells()
    record = read_json(study.path / "study.json")
    classes = tuple(map(str, record["classes"]))
    recipes = tuple(dict.fromkeys(Recipe(str(cell["strategy"]), str(cell["regime"])) for cell in planned))
    folds = len({cell.get("fold") for cell in planned}) or 1
    cells: list[Prediction] = []
    finished = [cell for cell in planned if study.is_finished(cell)]
    if finished:
        images = _labels_and_units(read_table(study.path / "catalog.csv"), classes)
        cells = [_of_cell(cell, images, *stored_set) for cell in finished for stored_set in stored(cell)]
    return Predictions(str(record["metric"]), classes, folds, tuple(cells), recipes)


def _tests(study: StudyDir, cell: Mapping[str, Any]) -> Iterable[Stored]:
    tensors, metadata = read_tensors(study.cell(cell["cell"]) / "logits.safetensors")
    return [(test, metadata["ids"][test], logits) for test, logits in tensors.items() if test != "validation"]


def _ranked(study: StudyDir, cell: Mapping[str, Any]) -> tuple[Sequence[str], Logits, bool]:
    """Return ids and logits of a cell's ranking set, and whether its choices on validation are cross-fitted."""
    folder = study.cell(cell["cell"])
    if (folder / "ranking.safetensors").is_file():
        tensors, metadata = read_tensors(folder / "ranking.safetensors")
        return metadata["ids"]["ranking"], tensors["ranking"], bool(metadata["paid"])
    tensors, metadata = read_tensors(folder / "logits.safetensors")
    candidates = read_json(folder / "cell.json")["candidates"]
    stopping = [candidate.get("early_stopping") for candidate in candidates.values()]
    chose = len(candidates) > 1 or any(settings and settings["monitor"] != "train_loss" for settings in stopping)
    return metadata["ids"]["validation"], tensors["validation"], not chose


def _labels_and_units(catalog: pd.DataFrame, classes: Iterable[str]) -> pd.DataFrame:
    """Return class number and independent unit of each image, by id."""
    numbers = {label: number for number, label in enumerate(classes)}
    used = catalog.drop_duplicates("id").set_index("id")
    unit = pd.Series(used.index, index=used.index).map("image {}".format)
    for column in ("cluster", "group"):
        if column in used.columns:
            named = used[column].map(str)
            unit = unit.where(named == "", f"{column} " + named)
    return pd.DataFrame({"label": used["label"].map(numbers), "unit": unit})


def _of_cell(
    cell: Mapping[str, Any], images: pd.DataFrame, test: str, ids: Sequence[str], logits: Logits
) -> Prediction:
    rows = images.loc[list(ids)]
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
    return pd.concat(parts).groupby(level=0, sort=False).agg({"unit": "first", "value": "mean"})


def common_index(tables: Sequence[pd.DataFrame]) -> pd.Index:
    """Return the image ids that all of several runs predict, in the order of the first."""
    common = tables[0].index
    for table in tables[1:]:
        if not table.index.equals(common):
            common = common[common.isin(table.index)]
    return common


def common_values(tables: Sequence[pd.DataFrame]) -> tuple[NDArray[np.float64], NDArray[np.str_], pd.Index]:
    """Return values (runs, images), units (images,) and ids of the images that all runs predict.

    Args:
        tables: one or more of those of ``Predictions.runs``.
    """
    common = common_index(tables)
    parts = [table if table.index.equals(common) else table.loc[common] for table in tables]
    values = np.array([part["value"].to_numpy(np.float64) for part in parts])
    return values, parts[0]["unit"].to_numpy(np.str_), common
