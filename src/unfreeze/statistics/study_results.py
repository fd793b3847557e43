"""All that a study measured and what the statistics make of it, read once: answer, page and tables rest on it."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from unfreeze.statistics.augmentation import augmentation_table
from unfreeze.statistics.comparisons import comparisons_table
from unfreeze.statistics.convergence import convergence_table
from unfreeze.statistics.data_quality import leading_metric, read_data_summary
from unfreeze.statistics.learning_curve import Curve, learning_curves
from unfreeze.statistics.predictions import Predictions, Ranking, Recipe, read_predictions, read_ranking
from unfreeze.statistics.selection import Standing, standing
from unfreeze.statistics.tables import cell_errors, cell_warnings, history_table, results_table
from unfreeze.storage.records import read_json
from unfreeze.storage.study_dir import StudyDir


@dataclass(frozen=True)
class StudyResults:
    """What a study holds.

    Attributes:
        study: the directory.
        record: study.json.
        plan: plan.json.
        shared: shared.json; empty where nothing has run.
        table, history: those of ``statistics.tables``.
        predictions: of the finished cells for test images.
        ranking: of the finished cells for the ranking set.
        standing: which recipe is recommended; None where nothing has finished.
        leading: the metric that leads the answer and ranks the recipes: the study's, or balanced accuracy where
            classes are uneven and nobody asked for accuracy.
        comparisons: the table of ``statistics.comparisons``.
        leading_comparisons: the same in the leading metric.
        curves: learning curves on the test set.
        augmentation: the table of ``statistics.augmentation``.
        convergence: the table of ``statistics.convergence``.
        errors: of failed cells, by cell; ``warnings``: the cells that gave each.
    """

    study: StudyDir
    record: Mapping[str, Any]
    plan: Mapping[str, Any]
    shared: Mapping[str, Any]
    table: pd.DataFrame
    history: pd.DataFrame
    predictions: Predictions
    ranking: Ranking
    standing: Standing | None
    leading: str
    comparisons: pd.DataFrame
    leading_comparisons: pd.DataFrame
    curves: tuple[Curve, ...]
    augmentation: pd.DataFrame
    convergence: pd.DataFrame
    errors: Mapping[str, str]
    warnings: Mapping[str, list[str]]

    @property
    def name(self) -> str:
        """Name of the study."""
        return str(self.record["name"])

    @property
    def metric(self) -> str:
        """The study's metric."""
        return str(self.record["metric"])

    @property
    def regimes(self) -> Mapping[str, Mapping[str, Any]]:
        """The resolved regimes by name."""
        return self.record["study"].get("regimes") or {}

    @property
    def validates_on_test(self) -> bool:
        """Tell whether the images that stopped the training also report."""
        return bool((self.record["study"].get("split") or {}).get("val") == "test")

    @property
    def finished(self) -> pd.DataFrame:
        """Rows of the finished cells."""
        return self.table[self.table["status"] == "finished"]

    def finished_runs(self, recipe: Recipe) -> pd.DataFrame:
        """Return the rows of a recipe's finished cells."""
        done = self.finished
        return done[(done["strategy"] == recipe.strategy) & (done["regime"] == recipe.regime)]

    @property
    def cell(self) -> str | None:
        """Id of the model to take away; None where nothing has finished."""
        return None if self.standing is None else self.standing.cell

    @property
    def test(self) -> str | None:
        """Name of the test set that the answer rests on; None where no finished cell has one."""
        return self.predictions.tests[0] if self.predictions.tests else None


def read_study_results(study: StudyDir) -> StudyResults:
    """Read a study, finished or not, and compute its statistics.

    Raises:
        UserError: the directory holds no study, or a record cannot be read.
    """
    table, history = results_table(study), history_table(study)
    record, plan = read_json(study.path / "study.json"), read_json(study.path / "plan.json")
    predictions = read_predictions(study)
    regimes = record["study"].get("regimes") or {}
    leading = leading_metric(record, read_data_summary(study).imbalance)
    found = read_ranking(study)
    ranking = replace(found, predictions=replace(found.predictions, metric=leading))
    comparisons = comparisons_table(predictions)
    curves = learning_curves(predictions, table, regimes)
    return StudyResults(
        study=study,
        record=record,
        plan=plan,
        shared=record_of(study.path / "shared.json"),
        table=table,
        history=history,
        predictions=predictions,
        ranking=ranking,
        standing=standing(table, ranking, plan.get("networks", {})),
        leading=leading,
        comparisons=comparisons,
        leading_comparisons=comparisons
        if leading == predictions.metric
        else comparisons_table(replace(predictions, metric=leading)),
        curves=tuple(curves),
        augmentation=augmentation_table(predictions, table, history, regimes, curves),
        convergence=convergence_table(study, table, history),
        errors=cell_errors(study),
        warnings=cell_warnings(study),
    )


def record_of(path: Path) -> dict[str, Any]:
    """Return a record's values but its format; nothing where there is no such file yet."""
    return {key: value for key, value in read_json(path).items() if key != "format"} if path.is_file() else {}
