"""Order the cells of a run, and leave out those that do not fit into a time limit."""

import time
from collections.abc import Mapping, Sequence

from unfreeze.activations.batches import BatchSource
from unfreeze.activations.keys import ActivationKey
from unfreeze.events import CellsLeft, Emit
from unfreeze.storage.shards import Row
from unfreeze.study.activation_plan import ActivationPlan
from unfreeze.study.cell import CellSpec
from unfreeze.study.executors.executor import Executor
from unfreeze.study.lockstep import groups_of


def correction(seconds: float, predicted: float) -> float:
    """Return the factor on remaining predictions: measured over predicted seconds of the groups so far.

    It is 1 before the first group has run, and never below a half: predictions are within a factor of two, so less
    time means that an earlier run had done part of a group.
    """
    return max(0.5, seconds / predicted) if predicted else 1.0


class Schedule:
    """Order of one run's cells, and which of them fit into its time limit.

    Args:
        specs: the cells that are not finished, by id, in plan order.
        shared: the plan of shared work, with predicted seconds.
        supply: knows which activations are stored.
        executor: runs the cells.
        emit: is called with the cells that are left out.
    """

    def __init__(
        self, specs: Mapping[str, CellSpec], shared: ActivationPlan, supply: BatchSource, executor: Executor, emit: Emit
    ) -> None:
        self.specs, self.shared, self.supply, self.executor, self.emit = specs, shared, supply, executor, emit
        self._seconds_per_row = {
            one.key: one.seconds / max(1, len(one.rows) - one.held) for one in shared.activations if one.stored
        }

    def run(self, seconds: float | None) -> tuple[list[str], list[str]]:
        """Run the cells; return the ids of those that failed, and of those that the time limit left out.

        Args:
            seconds: that remain; cells that are predicted to take more are left out. None: no limit.
        """
        order = dict(self.specs)
        if seconds is not None:
            order = dict(sorted(self.specs.items(), key=lambda entry: self._priority(*entry)))
        left_out: list[str] = []
        started = time.perf_counter()
        for group in groups_of(order):
            self.executor.wait()
            remaining = None if seconds is None else seconds - (time.perf_counter() - started)
            fitting, predicted = self._fitting(group, remaining)
            left_out += [cell_id for cell_id in group if cell_id not in fitting]
            if fitting:
                self.executor.submit(fitting, predicted)
        self.executor.finish()
        if left_out:
            self.emit(CellsLeft(tuple(left_out)))
        return self.executor.failed, left_out

    def _fitting(self, group: Sequence[str], seconds: float | None) -> tuple[list[str], float]:
        """Return the cells of a group that fit into ``seconds``, and their predicted seconds together."""
        factor = correction(self.executor.seconds, self.executor.predicted)
        fitting, predicted, counted = list[str](), 0.0, dict[ActivationKey, set[Row]]()
        for cell_id in group:
            expected, rows = self._predict(cell_id, counted)
            if seconds is not None and (predicted + expected) * factor > seconds:
                continue
            fitting.append(cell_id)
            predicted += expected
            for key, new in rows.items():
                counted.setdefault(key, set()).update(new)
        return fitting, predicted

    def _priority(self, cell_id: str, spec: CellSpec) -> tuple[int, int, float]:
        """Return the sort key of a cell: a whole grid before the next seed, in it the shortest first."""
        return spec.cell.seed, spec.cell.fold or 0, self.shared.cells[cell_id].seconds

    def _predict(
        self, cell_id: str, counted: Mapping[ActivationKey, set[Row]]
    ) -> tuple[float, dict[ActivationKey, list[Row]]]:
        """Predict the seconds of a cell, with the missing rows that are not ``counted`` for another one."""
        missing = dict[ActivationKey, list[Row]]()
        for key, rows in self.specs[cell_id].reads.rows.items():
            if key in self._seconds_per_row:
                known = counted.get(key, set())
                missing[key] = [row for row in self.supply.missing(key, list(rows)) if row not in known]
        shared = sum(self._seconds_per_row[key] * len(rows) for key, rows in missing.items())
        return self.shared.cells[cell_id].seconds + shared, missing
