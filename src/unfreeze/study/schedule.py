"""Decide in which order cells run, and under a time limit which: those that fit, the most telling first."""

import time
from collections.abc import Mapping, Sequence

from unfreeze.activations.batches import BatchSource
from unfreeze.activations.keys import ActivationKey
from unfreeze.events import CellsLeft, Emit
from unfreeze.storage.shards import Row
from unfreeze.study.activation_plan import ActivationPlan
from unfreeze.study.executors.executor import Executor
from unfreeze.study.lockstep import CellTask, groups_of


def correction(seconds: float, predicted: float) -> float:
    """Return what the remaining predictions are multiplied by: measured over predicted seconds of the groups so far.

    Before the first group has run it is 1. It is never below a half: predictions are within a factor of two, so less
    time means that an earlier run had done part of a group.
    """
    return max(0.5, seconds / predicted) if predicted else 1.0


class Schedule:
    """The order of one run's cells, and what fits into its time limit.

    Args:
        tasks: the cells that are not finished, by id, in plan order.
        shared: what they share, and what everything is predicted to take.
        supply: knows what is stored.
        executor: runs them.
        emit: is called with the cells that are left out.
    """

    def __init__(
        self,
        tasks: Mapping[str, CellTask],
        shared: ActivationPlan,
        supply: BatchSource,
        executor: Executor,
        emit: Emit,
    ) -> None:
        self.tasks, self.shared, self.supply, self.executor, self.emit = tasks, shared, supply, executor, emit
        self._rates = {
            one.key: one.seconds / max(1, len(one.rows) - one.held) for one in shared.activations if one.stored
        }

    def run(self, seconds: float | None) -> tuple[list[str], list[str]]:
        """Run the cells; return which failed, and which the time limit left out.

        Args:
            seconds: that are left; a cell that is predicted to take more is left out. None: no limit.
        """
        order = dict(self.tasks)
        if seconds is not None:
            order = dict(sorted(self.tasks.items(), key=lambda entry: self._telling(*entry)))
        left_out: list[str] = []
        started = time.perf_counter()
        for group in groups_of(order):
            self.executor.wait()
            left = None if seconds is None else seconds - (time.perf_counter() - started)
            fitting, predicted = self._fitting(group, left)
            left_out += [cell for cell in group if cell not in fitting]
            if fitting:
                self.executor.submit(fitting, predicted)
        self.executor.finish()
        if left_out:
            self.emit(CellsLeft(tuple(left_out)))
        return self.executor.failed, left_out

    def _fitting(self, group: Sequence[str], seconds: float | None) -> tuple[list[str], float]:
        """Return a group's cells that fit into so many seconds, and what they are predicted to take together."""
        pace = correction(self.executor.seconds, self.executor.predicted)
        fitting, predicted, counted = list[str](), 0.0, dict[ActivationKey, set[Row]]()
        for cell in group:
            expected, rows = self._seconds(cell, counted)
            if seconds is not None and (predicted + expected) * pace > seconds:
                continue
            fitting.append(cell)
            predicted += expected
            for key, new in rows.items():
                counted.setdefault(key, set()).update(new)
        return fitting, predicted

    def _telling(self, name: str, task: CellTask) -> tuple[int, int, float]:
        """Order cells: a whole grid before the next seed, in it the shortest first."""
        return task.spec.cell.seed, task.spec.cell.fold or 0, self.shared.cells[name].seconds

    def _seconds(
        self, name: str, counted: Mapping[ActivationKey, set[Row]]
    ) -> tuple[float, dict[ActivationKey, list[Row]]]:
        """Predict a cell, with the rows that it needs, nobody has computed yet and no other cell is charged with."""
        needed = self.tasks[name].reads.rows
        missing = {
            key: [row for row in self.supply.missing(key, list(needed[key])) if row not in counted[key]]
            if key in counted
            else self.supply.missing(key, list(needed[key]))
            for key in needed
            if key in self._rates
        }
        shared = sum(self._rates[key] * len(rows) for key, rows in missing.items())
        return self.shared.cells[name].seconds + shared, missing
