"""Read a study directory and compute its statistics, once for answer, report and tables."""

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
from unfreeze.statistics.predictions import Predictions, RankingSet, Recipe, read_predictions, read_ranking_set
from unfreeze.statistics.selection import RecipeRanking, rank_recipes
from unfreeze.statistics.tables import cell_errors, cell_warnings, history_table, results_table
from unfreeze.storage.records import read_json
from unfreeze.storage.study_dir import StudyDir


@dataclass(frozen=True)
class StudyResults:
    """Results of a study and their statistics.

    Attributes:
        study: the study directory.
        record: study.json.
        plan: plan.json.
        shared: shared.json; empty where nothing has run.
        table, history: results and epochs of the cells, see ``statistics.tables``.
        predictions: of the finished cells for the test sets.
        ranking_set: of the finished cells for the ranking set.
        ranking: the ranked recipes; None where nothing has finished.
        leading: the metric that leads the answer and ranks the recipes: the study's, or balanced accuracy where classes
            are imbalanced and accuracy is only the default.
        comparisons: the table of ``statistics.comparisons``, in the study's metric.
        leading_comparisons: the same in the leading metric.
        curves: learning curves on the test set.
        augmentation: the table of ``statistics.augmentation``.
        convergence: the table of ``statistics.convergence``.
        errors: text of each failed cell's error, by cell.
        warnings: the cells that gave each warning, by its text.
    """

    study: StudyDir
    record: Mapping[str, Any]
    plan: Mapping[str, Any]
    shared: Mapping[str, Any]
    table: pd.DataFrame
    history: pd.DataFrame
    predictions: Predictions
    ranking_set: RankingSet
    ranking: RecipeRanking | None
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
        """Name of the study's metric."""
        return str(self.record["metric"])

    @property
    def regimes(self) -> Mapping[str, Mapping[str, Any]]:
        """The resolved regimes by name."""
        return self.record["study"].get("regimes") or {}

    @property
    def validates_on_test(self) -> bool:
        """Whether the validation images are the test images, so that test scores are optimistic."""
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
        """Id of the cell whose model is shipped; None where nothing has finished."""
        return None if self.ranking is None else self.ranking.cell

    @property
    def test(self) -> str | None:
        """Name of the test set that the answer reports on; None where no finished cell has one."""
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
    ranking_set = read_ranking_set(study)
    ranking_set = replace(ranking_set, predictions=replace(ranking_set.predictions, metric=leading))
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
        ranking_set=ranking_set,
        ranking=rank_recipes(table, ranking_set, plan.get("networks", {})),
        leading=leading,
        comparisons=comparisons,
        leading_comparisons=comparisons
        if leading == predictions.metric
        else comparisons_table(replace(predictions, metric=leading)),
        curves=tuple(curves),
        augmentation=augmentation_table(predictions, table, history, regimes, curves),
        convergence=convergence_table(table, history, plan),
        errors=cell_errors(study),
        warnings=cell_warnings(study),
    )


def record_of(path: Path) -> dict[str, Any]:
    """Return the values of a JSON record without its format version; empty if there is no such file."""
    return {key: value for key, value in read_json(path).items() if key != "format"} if path.is_file() else {}
