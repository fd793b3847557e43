"""Run the cells that are not finished, group by group; under a time limit those that fit, the most telling first."""

import contextlib
import time
import traceback
from collections.abc import Callable, Mapping
from typing import Any

from unfreeze.config.resolve import Strategy
from unfreeze.data.cache import folder_bytes
from unfreeze.data.rowstore import Row
from unfreeze.errors import UserError
from unfreeze.model.backbone import Backbone
from unfreeze.store import Altered, StudyDir, read_json, sealed, write_json
from unfreeze.study.cell import CELL_FILES
from unfreeze.study.events import CellFailed, CellsLeft, Emit
from unfreeze.study.group import GroupRun
from unfreeze.study.grouping import GroupJob, groups_of
from unfreeze.study.needs import Piece, PrefixKey, together
from unfreeze.study.shared import Shared, name_of
from unfreeze.study.supply import Supply
from unfreeze.train.device import Compute
from unfreeze.train.loop import Diverged


class CellsRun:
    """The cells of one run.

    Args:
        jobs: those that are not finished, by id, in plan order.
        shared: what they share, and what everything is predicted to take.
        supply: gives inputs.
        backbones: gives a backbone for a strategy and seed; it is not changed.
        store: the study directory.
        compute: device and precision.
        emit: is told what happens.
    """

    def __init__(
        self,
        jobs: Mapping[str, GroupJob],
        shared: Shared,
        supply: Supply,
        backbones: Callable[[Strategy, int], Backbone],
        store: StudyDir,
        compute: Compute,
        emit: Emit,
    ) -> None:
        self.jobs, self.shared, self.supply, self.backbones = jobs, shared, supply, backbones
        self.store, self.compute, self.emit = store, compute, emit
        self.predicted = 0.0
        """Seconds predicted for what was run."""
        self._failed: list[str] = []
        self._rates = {one.piece: one.seconds / max(1, len(one.rows) - one.held) for one in shared.pieces if one.stored}

    def all(self, seconds: float | None) -> tuple[list[str], list[str]]:
        """Run them; return which failed, and which the time limit left out.

        Args:
            seconds: that are left; a cell that is predicted to take more is left out. None: no limit.
        """
        order = dict(self.jobs)
        if seconds is not None:
            order = dict(sorted(self.jobs.items(), key=lambda entry: self._telling(*entry)))
        left: list[str] = []
        began = time.perf_counter()
        for group in groups_of(order):
            chosen, predicted, counted = list[str](), 0.0, dict[Piece, set[Row]]()
            for name in group:
                expected, rows = self._seconds(name, counted)
                spent = time.perf_counter() - began
                pace = max(1.0, spent / self.predicted) if self.predicted else 1.0
                if seconds is not None and spent + (predicted + expected) * pace > seconds:
                    left.append(name)
                    continue
                chosen.append(name)
                predicted += expected
                for piece, new in rows.items():
                    counted.setdefault(piece, set()).update(new)
            if chosen:
                self.predicted += predicted
                self._run({name: self.jobs[name] for name in chosen})
        if left:
            self.emit(CellsLeft(tuple(left)))
        return self._failed, left

    def _telling(self, name: str, one: GroupJob) -> tuple[int, int, float]:
        """Order cells: a whole grid before the next seed, in it what is done soonest."""
        return one.job.cell.seed, one.job.cell.fold or 0, self.shared.cells[name].seconds

    def _seconds(self, name: str, counted: Mapping[Piece, set[Row]]) -> tuple[float, dict[Piece, list[Row]]]:
        """Predict a cell, with the rows that it needs, nobody has computed yet and no other cell is charged with."""
        needed = self.jobs[name].needs.rows
        missing = {
            piece: [row for row in self.supply.store(piece).missing(list(needed[piece])) if row not in counted[piece]]
            if piece in counted
            else self.supply.store(piece).missing(list(needed[piece]))
            for piece in needed
            if piece in self._rates
        }
        shared = sum(self._rates[piece] * len(rows) for piece, rows in missing.items())
        return self.shared.cells[name].seconds + shared, missing

    def _run(self, jobs: Mapping[str, GroupJob]) -> None:
        run = GroupRun(jobs, self.backbones, self.supply, self.store, self.compute, self.emit, self._fail)
        try:
            self.supply.prepare(together(one.needs for one in jobs.values()))
        except BrokenPipeError:
            raise
        except Exception as error:  # whatever it is, the study's other cells go on
            for name in jobs:
                self._fail(name, error)
            return
        run.run()

    def _fail(self, name: str, error: Exception) -> None:
        diverged, said = isinstance(error, Diverged), isinstance(error, UserError)
        text = f"diverged: {error}" if diverged else str(error) if said else f"{type(error).__name__}: {error}"
        trace = "" if said or diverged else "".join(traceback.format_exception(error))
        self._failed.append(name)
        record = {"error": text, "traceback": trace, "status": "diverged" if diverged else "failed"}
        files = sealed(self.store.cell(name), CELL_FILES)
        write_json(self.store.cell(name) / "error.json", {**record, "files": files})
        self.emit(CellFailed(name, text, diverged))


def add_facts(
    store: StudyDir,
    shared: Shared,
    supply: Supply,
    predicted: float,
    stages: Mapping[PrefixKey, Any],
    times: Mapping[str, float],
) -> None:
    """Add to shared.json what one run's shared work really took, beside what was predicted for it.

    Args:
        store: the study directory.
        shared: the plan.
        supply: knows what was computed.
        predicted: seconds predicted for the cells that ran, with what they share.
        stages: names stages, by prefix.
        times: seconds of the parts of the run.
    """
    path = store.path / "shared.json"
    runs = []
    with contextlib.suppress(FileNotFoundError, Altered):  # what earlier runs took is for the report alone
        runs = read_json(path)["runs"]
    facts = supply.facts
    pieces = [
        {"name": name_of(piece, stages), "rows": facts.computed[piece], "seconds": facts.seconds[piece]}
        for piece in facts.computed
    ]
    disk = {one.folder: folder_bytes(one.folder) for one in supply.stores() if one.folder.is_dir()}
    run = {
        "predicted_seconds": predicted,
        "seconds": dict(times),
        "pieces": pieces,
        "forwards": sum(prefix.forwards for prefix in supply.prefixes.values()),
        "altered_chunks": facts.altered_chunks,
        "predicted_disk": shared.bytes,
        "disk": sum(disk.values()),
    }
    runs = [*runs, run]
    write_json(path, {"forwards": sum(one["forwards"] for one in runs), "runs": runs})
