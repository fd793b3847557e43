"""Python interface: `Study` and `Results`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import pandas as pd

from unfreeze.config.load import read_study
from unfreeze.config.schema import StudyConfig
from unfreeze.data.sources import known_classes, source_of
from unfreeze.events import Emit, Event
from unfreeze.report.page import write_report
from unfreeze.statistics.comparisons import compare, comparisons_table
from unfreeze.statistics.predictions import read_predictions
from unfreeze.statistics.scores import by_column, scores_table
from unfreeze.statistics.study_results import read_study_results
from unfreeze.statistics.tables import history_table, results_table
from unfreeze.storage.study_dir import StudyDir
from unfreeze.study.network_plan import Plan, make_plan
from unfreeze.study.registries import registered
from unfreeze.study.run import run_study


def _silent(event: Event) -> None:
    """Show nothing."""


class Study:
    """A study: strategies x regimes x seeds on one data set.

    Keyword arguments have the names and values of the study file.

    Raises:
        UserError: names everything that is wrong.

    Examples:
        >>> study = Study(
        ...     data="photos",
        ...     backbone="resnet18",
        ...     strategies={"head": {"train": "head"}, "fine_tune": {"train": "all"}},
        ...     regimes={"small": {"train_per_class": 25}, "full": {}},
        ...     seeds=3,
        ... )
        >>> study.config.seeds
        (0, 1, 2)
        >>> results = study.run("runs/photos")  # doctest: +SKIP
    """

    def __init__(self, **values: Any) -> None:
        self.config: StudyConfig = read_study(choices=registered(), values=values)
        self.source_text = ""

    @classmethod
    def from_yaml(
        cls,
        path: str | Path | None = None,
        *,
        preset: str | None = None,
        values: Mapping[str, Any] | None = None,
        overrides: Sequence[str] = (),
    ) -> Self:
        """Read a study file; ``overrides`` (``key.path=value``) over ``values`` over the file over the preset."""
        study = cls.__new__(cls)
        study.config = read_study(
            Path(path) if path else None, choices=registered(), preset=preset, values=values, overrides=overrides
        )
        study.source_text = Path(path).read_text(encoding="utf-8") if path else ""
        return study

    def plan(self) -> Plan:
        """Return the cells and networks; nothing runs, and only the names of the data's classes are needed."""
        known = known_classes(self.config, Path.cwd())
        return make_plan(self.config, known or len(source_of(self.config, Path.cwd()).classes))

    def run(
        self,
        out: str | Path | None = None,
        *,
        emit: Emit = _silent,
        workers: int | None = None,
        seconds: float | None = None,
        parallel: int = 1,
    ) -> "Results":
        """Run what is missing in the directory ``out`` (by default ``runs/NAME``), and return what is there.

        The arguments are those of ``study.run.run_study``.
        """
        directory = Path(out) if out else Path("runs") / self.config.name
        outcome = run_study(self.config, directory, emit, self.source_text, workers, seconds, parallel)
        write_report(outcome.results)
        return Results(directory, outcome.failed, outcome.left_out)


@dataclass(frozen=True)
class Results:
    """What a study directory holds.

    Attributes:
        path: the study directory; text will do.
        failed: cells that failed in this run.
        left: cells that the time limit left out.

    Examples:
        >>> results = Results("runs/mine")
        >>> results.table["status"].unique().tolist()
        ['finished']
        >>> results.history.columns[:6].tolist()
        ['cell', 'strategy', 'regime', 'seed', 'fold', 'candidate']
        >>> results.compare("last", "head")["within"].unique().tolist()
        ['small', 'bank', 'full']
    """

    path: Path
    failed: tuple[str, ...] = ()
    left: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "path", Path(self.path))

    @property
    def table(self) -> pd.DataFrame:
        """A row a cell, with the columns of results.csv."""
        return results_table(StudyDir(self.path))

    @property
    def history(self) -> pd.DataFrame:
        """A row an epoch of each cell and candidate."""
        return history_table(StudyDir(self.path))

    @property
    def comparisons(self) -> pd.DataFrame:
        """A row a comparison and test set, with the columns of comparisons.csv."""
        return comparisons_table(read_predictions(StudyDir(self.path)))

    @property
    def scores(self) -> pd.DataFrame:
        """A row a cell, test set and metric with its 95 % interval, see ``statistics.scores.scores_table``."""
        return scores_table(read_predictions(StudyDir(self.path)))

    @property
    def best_cell(self) -> str | None:
        """Id of the model to take away: the recommended recipe's first seed; None where nothing has finished."""
        return read_study_results(StudyDir(self.path)).cell

    def by(self, column: str) -> pd.DataFrame:
        """Return test scores apart for each value of a column of the data, see ``statistics.scores``.

        Raises:
            UserError: the data has no such column.
        """
        return by_column(StudyDir(self.path), column)

    def compare(self, a: str, b: str) -> pd.DataFrame:
        """Return the comparison of two strategies, or of two regimes, on the test images: a minus b, with intervals.

        A row for each regime (or strategy) and test set, with the columns of comparisons.csv: ``difference`` in the
        study's metric, paired by seed and image, ``low`` and ``high`` around it, and a ``verdict`` on a; see
        ``statistics.comparisons.comparisons_table``.

        Raises:
            UserError: the study does not compare these two.
        """
        return compare(self.comparisons, a, b)

    def report(self, path: str | Path | None = None) -> Path:
        """Write the report, by default report.html in the study directory, and return its path.

        A cell with a file that was altered or lost is left out; the next run makes it again.
        """
        store = StudyDir(self.path)
        store.set_aside_altered(store.planned_cells())
        return write_report(read_study_results(store), Path(path) if path else None)
