"""Run a group of cells: train all candidates in lock-step, choose one per cell, write results."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from torch import Tensor

from unfreeze import metrics
from unfreeze.activations.batches import BatchSource
from unfreeze.activations.keys import PrefixKey, prefix_of
from unfreeze.activations.prefix import Prefix
from unfreeze.config.resolve import Strategy
from unfreeze.events import BetweenSteps, CellFinished, CellResumed, CellStarted, Emit, EpochEnded, Progress, Warned
from unfreeze.inputs.loader import is_death
from unfreeze.model.backbone import Backbone, own_copy
from unfreeze.model.memory import OutOfMemory, is_out_of_memory, memory_error
from unfreeze.statistics.tables import HISTORY_COLUMNS
from unfreeze.storage.atomic import DiskFull
from unfreeze.storage.records import write_table
from unfreeze.storage.study_dir import StudyDir
from unfreeze.study.cell import CellSpec
from unfreeze.study.finish import ChosenCandidate, KeptEpochs, Times, finish_cell, keeps_validation, write_model
from unfreeze.study.lockstep import Member, lockstep_batches
from unfreeze.train.candidate_run import CandidateRun, CandidateState, CandidateTask, TrainedCandidate
from unfreeze.train.checkpoint import (
    END_SECONDS,
    BeatenCandidate,
    CellCheckpoint,
    CheckpointTimer,
    DivergedCandidate,
)
from unfreeze.train.device import Compute, conditions
from unfreeze.train.micro_batch import MicroBatch
from unfreeze.train.phase_run import Diverged, EpochRow
from unfreeze.train.trainer import Callbacks, Trainer


@dataclass
class _RunningCell:
    """State of a cell while it runs.

    Attributes:
        states: candidates that an earlier run has begun, until they are trained further.
        history: rows of the epochs of each candidate.
        examples: training images drawn by each candidate.
        waiting: candidates that are not trained to their end.
        diverged: candidates that diverged.
        chosen: the best trained candidate so far.
        trained: the best trained candidate's network and results.
        validation: logits of validation images by epoch, of trained candidates.
        failed: whether the cell failed.
    """

    states: dict[str, CandidateState] = field(default_factory=dict)
    history: dict[str, list[EpochRow]] = field(default_factory=dict)
    examples: dict[str, int] = field(default_factory=dict)
    waiting: set[str] = field(default_factory=set)
    diverged: dict[str, Diverged] = field(default_factory=dict)
    chosen: str = ""
    trained: TrainedCandidate | None = None
    validation: dict[str, Mapping[str, Tensor]] = field(default_factory=dict)
    failed: bool = False


class GroupRun:
    """Run of one group of cells.

    Args:
        specs: its cells, by id.
        backbones: returns a pretrained backbone for a strategy and seed; it is not changed.
        supply: gives inputs.
        store: the study directory.
        compute: device and precision.
        emit: is called with each event.
        on_failed: is called with the id of a cell that failed, its error, and a function that writes the files it has
            nevertheless into a folder; the other cells continue.
    """

    def __init__(
        self,
        specs: Mapping[str, CellSpec],
        backbones: Callable[[Strategy, int], Backbone],
        supply: BatchSource,
        store: StudyDir,
        compute: Compute,
        emit: Emit,
        on_failed: Callable[[str, Exception, Callable[[Path], None]], None],
    ) -> None:
        self.specs, self.backbones, self.supply, self.store = specs, backbones, supply, store
        self.compute, self.emit, self.on_failed = compute, emit, on_failed
        self._cells = {cell_id: _RunningCell(waiting=set(spec.networks)) for cell_id, spec in specs.items()}
        self._conditions = conditions(compute)
        self._checkpoints = CheckpointTimer(store, self._bound_to, emit)
        self._memory_warnings = list[str]()  # not emitted yet
        self._states = {cell_id: self._checkpoints.load(cell_id) or CellCheckpoint() for cell_id in specs}
        for state in self._states.values():  # before anything is computed
            for label, rows in state.frozen_rows.items():
                for key, prefix in supply.prefixes.items():
                    if key.label == label:
                        prefix.take_fewer(rows)
        self._frozen_rows = {key: prefix.batch for key, prefix in supply.prefixes.items()}

    def run(self) -> None:
        """Run every cell to its end."""
        self._warn_of_memory()
        for cell_id in self.specs:
            self._begin(cell_id)
        waiting = [
            Member(cell_id, candidate)
            for cell_id, spec in self.specs.items()
            for candidate in spec.networks
            if candidate in self._cells[cell_id].waiting
        ]
        for members in lockstep_batches(self.specs, waiting):
            alive = [member for member in members if not self._cells[member.cell_id].failed]
            if alive:
                self._train(alive)

    def _warn_of_memory(self) -> bool:
        """Emit where memory ran short since the last call; return whether it did.

        Only between steps and lock-step batches: a listener may end the run there.
        """
        for key, prefix in self.supply.prefixes.items():
            if prefix.batch < self._frozen_rows[key]:
                self._frozen_rows[key] = prefix.batch
                self._memory_warnings += prefix.warnings(key.label, self._conditions["device"])
        warnings, self._memory_warnings = self._memory_warnings, []
        for text in warnings:
            self.emit(Warned(text))
        return bool(warnings)

    def _begin(self, cell_id: str) -> None:
        """Announce a cell, and restore what its checkpoint holds."""
        spec, cell, state = self.specs[cell_id], self._cells[cell_id], self._states.pop(cell_id)
        self.emit(CellStarted(cell_id, sum(map(spec.examples, spec.networks))))
        cell.waiting -= state.beaten.keys() | state.diverged.keys()
        cell.states.update(state.candidates)
        for candidate, beaten in state.beaten.items():
            cell.validation[candidate] = beaten.validation
        for candidate, diverged in state.diverged.items():
            cell.diverged[candidate] = Diverged(diverged.error, diverged.best)
        histories = {name: beaten.history for name, beaten in state.beaten.items()}
        histories |= {name: diverged.history for name, diverged in state.diverged.items()}
        histories |= {name: known["history"] for name, known in state.candidates.items()}
        for candidate, rows in histories.items():
            cell.history[candidate] = list(rows)
            cell.examples[candidate] = rows[-1].examples if rows else 0
        for candidate, known in state.candidates.items():
            position = known["position"]
            cell.examples[candidate] += position.totals.examples
            self.emit(CellResumed(cell_id, candidate, position.epoch, sum(cell.examples.values())))

    def _train(self, members: Sequence[Member]) -> None:
        """Train candidates in lock-step to their end."""
        first = members[0]
        spec = self.specs[first.cell_id]
        strategy, seed = spec.candidates[first.candidate], spec.cell.seed
        try:
            train, validation = self.supply.images(spec.train), self.supply.images(spec.selection.validation)
            spans = [span for cell_id, candidate in members for span in self.specs[cell_id].phase_spans(candidate)]
            cuts, stop = {span.cut for span in spans}, max(span.stop for span in spans)
            stream = self.supply.stream(strategy, spec.regime, seed, train, cuts, stop)
        except BrokenPipeError:
            raise
        except Exception as error:  # whatever it is, the study's other cells continue
            for cell_id in dict.fromkeys(member.cell_id for member in members):
                self._fail(cell_id, error)
            return
        evaluation = partial(self.supply.validation, strategy, spec.regime, seed, validation)
        callbacks = Callbacks(self._before_step, self._on_step, self._on_epoch, self._on_end)
        trainer = Trainer(stream, evaluation, callbacks)
        for member in members:
            try:
                trainer.add(member, self._candidate_run(member))
            except Exception as error:  # the others continue
                self._on_end(member, error)
        trainer.fit()
        self._warn_of_memory()

    def _candidate_run(self, member: Member) -> CandidateRun:
        spec, cell = self.specs[member.cell_id], self._cells[member.cell_id]
        network = spec.networks[member.candidate]
        strategy, lowest = network.strategy, min(network.cuts)
        cell.history.setdefault(member.candidate, [])
        state = cell.states.pop(member.candidate, None)

        def on_less() -> None:
            self._memory_warnings += self._micro_batch_warnings(spec, strategy, micro_batch)

        micro_batch = MicroBatch(state["micro_batch"] if state else {}, on_less)
        task = CandidateTask(
            strategy=strategy,
            regime=spec.regime,
            metric=spec.study.metric,
            seed=spec.cell.seed,
            class_count=len(spec.catalog.classes),
            image_count=len(spec.train),
            class_weights=spec.class_weights,
            prefix_sha256=self.supply.prefix_sha256(prefix_of(strategy), lowest),
            keep_validation=keeps_validation(spec),
        )
        backbone = own_copy(self.backbones(strategy, spec.cell.seed), lowest)
        return CandidateRun(task, backbone, self.compute, micro_batch, state)

    def _before_step(self, runs: Mapping[Member, CandidateRun]) -> None:
        """Save checkpoints if that is due, or if a listener ends the run here."""

        def save() -> None:
            cell_ids = dict.fromkeys(member.cell_id for member in runs if not self._cells[member.cell_id].failed)
            self._checkpoints.save({cell_id: partial(self._checkpoint, cell_id, runs) for cell_id in cell_ids})

        try:
            has_warned = self._warn_of_memory()
            self.emit(BetweenSteps())
        except BaseException:
            save()
            raise
        if has_warned or self._checkpoints.due():  # a resumed run divides its batches as this one does from now on
            save()

    def _on_step(self, member: Member, run: CandidateRun) -> None:
        examples = self._cells[member.cell_id].examples
        examples[member.candidate] = run.examples
        self.emit(Progress(member.cell_id, member.candidate, run.epoch, sum(examples.values())))

    def _on_epoch(self, member: Member, row: EpochRow) -> None:
        self._cells[member.cell_id].history[member.candidate].append(row)
        self.emit(EpochEnded(member.cell_id, {"candidate": member.candidate, **asdict(row)}))

    def _on_end(self, member: Member, result: TrainedCandidate | Exception) -> None:
        cell_id, candidate = member
        cell = self._cells[cell_id]
        cell.waiting.discard(candidate)
        if cell.failed:
            return
        if isinstance(result, TrainedCandidate):
            cell.validation[candidate] = result.validation
            if self._beats_chosen(member, result):
                cell.chosen, cell.trained = candidate, result
        elif isinstance(result, Diverged):
            cell.diverged[candidate] = result
        else:
            self._fail(cell_id, result, candidate)
            return
        if not cell.waiting:
            try:
                self._finish(cell_id)
            except BrokenPipeError:
                raise
            except Exception as error:  # whatever it is, the other cells continue
                self._fail(cell_id, error, cell.chosen)

    def _beats_chosen(self, member: Member, result: TrainedCandidate) -> bool:
        """Tell whether validation prefers a candidate; of equals the first one in the study, whichever ended first."""
        spec, cell = self.specs[member.cell_id], self._cells[member.cell_id]
        if cell.trained is None:
            return True
        value, best = result.best.val_metric, cell.trained.best.val_metric
        order = list(spec.networks)
        is_earlier = order.index(member.candidate) < order.index(cell.chosen)
        return metrics.is_better(spec.study.metric, value, best) or (value == best and is_earlier)

    def _finish(self, cell_id: str) -> None:
        """Write the folder of a cell whose candidates are all trained."""
        spec, cell = self.specs[cell_id], self._cells[cell_id]
        if cell.trained is None:
            raise next(cell.diverged[candidate] for candidate in spec.networks if candidate in cell.diverged)
        if self._checkpoints.due(END_SECONDS):
            self._checkpoints.save({cell_id: partial(self._checkpoint, cell_id, {})})
        result = self.store.finished(cell_id, spec.fingerprint)  # by another run, which locks alone prevent
        if result is None:
            with self.store.new_cell(cell_id, spec.fingerprint) as folder:
                self._write_history(cell_id, folder)
                result = self._write(cell_id, folder, cell.trained)
        cell.trained = None  # its weights are on disk
        self._checkpoints.remove(cell_id)
        self.emit(CellFinished(cell_id, result))

    def _write(self, cell_id: str, folder: Path, trained: TrainedCandidate) -> dict[str, Any]:
        spec, cell = self.specs[cell_id], self._cells[cell_id]

        def warnings() -> Iterator[str]:
            for candidate in spec.networks:
                if candidate in cell.diverged:
                    yield f"candidate {candidate} diverged: {cell.diverged[candidate]}"
            strategy = spec.candidates[cell.chosen]
            yield from self._micro_batch_warnings(spec, strategy, trained.micro_batch)
            prefix = self.supply.prefixes.get(prefix_of(strategy))
            if prefix:
                yield from prefix.warnings(prefix_of(strategy).label, self._conditions["device"])

        rows = [row for candidate in spec.networks for row in cell.history[candidate]]
        times = Times(
            per_epoch=float(np.mean([row.seconds for row in trained.history])),
            total=sum(row.seconds for row in rows),
            shared=self.supply.shared_seconds(spec.reads),
        )
        tried = {
            candidate: KeptEpochs(cell.history[candidate], cell.validation[candidate])
            for candidate in spec.networks
            if candidate in cell.validation
        }
        chosen = ChosenCandidate(cell.chosen, trained, spec.networks[cell.chosen], tried)
        return finish_cell(spec, chosen, self.supply, folder, self.compute, times, warnings)

    def _checkpoint(self, cell_id: str, runs: Mapping[Member, CandidateRun]) -> CellCheckpoint:
        """Return a cell's state; ``runs`` are the candidates in training."""
        cell, networks = self._cells[cell_id], self.specs[cell_id].networks
        candidates = dict(cell.states)  # those that wait for their lock-step batch
        candidates |= {member.candidate: run.state_dict() for member, run in runs.items() if member.cell_id == cell_id}
        if cell.trained is not None:
            candidates[cell.chosen] = cell.trained.state_dict()
        first = next(iter(networks))  # whose weights stay if all diverge
        beaten = networks.keys() - candidates.keys() - cell.waiting - cell.diverged.keys()
        return CellCheckpoint(
            candidates=candidates,
            beaten={
                candidate: BeatenCandidate(cell.history[candidate], cell.validation.get(candidate, {}))
                for candidate in networks
                if candidate in beaten
            },
            diverged={
                candidate: DivergedCandidate(
                    str(error), cell.history[candidate], error.best if candidate == first else {}
                )
                for candidate, error in cell.diverged.items()
            },
            frozen_rows={key.label: prefix.batch for key, prefix in self._prefixes(cell_id).items() if prefix.is_short},
        )

    def _bound_to(self, cell_id: str) -> dict[str, Any]:
        """Return the conditions under which a cell's state may be resumed."""
        spec = self.specs[cell_id]
        return {
            "settings": spec.fingerprint,
            "data": spec.data_fingerprint,
            "engines": [dict(prefix.calibration.engine) for prefix in self._prefixes(cell_id).values()],
        } | self._conditions

    def _prefixes(self, cell_id: str) -> dict[PrefixKey, Prefix]:
        """Return the frozen networks that a cell's candidates may use."""
        keys = dict.fromkeys(prefix_of(strategy) for strategy in self.specs[cell_id].candidates.values())
        return {key: self.supply.prefixes[key] for key in keys if key in self.supply.prefixes}

    def _micro_batch_warnings(self, spec: CellSpec, strategy: Strategy, micro_batch: MicroBatch) -> list[str]:
        return micro_batch.warnings(spec.cell.strategy, strategy.batch_size, self._conditions["device"])

    def _write_history(self, cell_id: str, folder: Path) -> None:
        history = self._cells[cell_id].history
        rows = [
            {"candidate": candidate, **asdict(row)}
            for candidate in self.specs[cell_id].networks
            for row in history.get(candidate, [])
        ]
        if rows:
            write_table(folder / "history.csv", pd.DataFrame(rows, columns=list(HISTORY_COLUMNS)))

    def _fail(self, cell_id: str, error: Exception, candidate: str = "") -> None:
        """Report a cell as failed; raise an error that all cells would meet."""
        if isinstance(error, DiskFull) or is_death(error):
            raise error
        spec, cell = self.specs[cell_id], self._cells[cell_id]
        if is_out_of_memory(error) and not isinstance(error, MemoryError):  # Python's own is not the device's
            strategy = spec.candidates.get(candidate) or next(iter(spec.candidates.values()))
            least = error.least if isinstance(error, OutOfMemory) else 1
            size, precision, device = strategy.image_size, self.compute.precision, self.compute.device
            error = memory_error(strategy.backbone.name, size, precision, device, least)
        if not cell.failed:
            cell.failed, cell.trained = True, None
            self.on_failed(cell_id, error, partial(self._write_failed, cell_id, error))
            if isinstance(error, Diverged):
                self._checkpoints.remove(cell_id)

    def _write_failed(self, cell_id: str, error: Exception, folder: Path) -> None:
        """Write the files of a failed cell: its history, and the best weights before it diverged."""
        self._write_history(cell_id, folder)
        if not isinstance(error, Diverged) or not error.best:
            return
        network = next(iter(self.specs[cell_id].networks.values()))
        prefix_sha256 = self.supply.prefix_sha256(prefix_of(network.strategy), min(network.cuts))
        write_model(folder, error.best, prefix_sha256, network.strategy.backbone.name)
