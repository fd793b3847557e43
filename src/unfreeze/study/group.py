"""Run a group of cells: train all candidates in lock-step, choose one per cell, write results."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
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
from unfreeze.model.memory import OutOfMemory, is_out_of_memory, no_room
from unfreeze.statistics.tables import HISTORY_COLUMNS
from unfreeze.storage.atomic import DiskFull
from unfreeze.storage.records import write_table
from unfreeze.storage.study_dir import StudyDir
from unfreeze.study.cell import examples_of
from unfreeze.study.environment import conditions
from unfreeze.study.finish import ChosenCandidate, Times, finish_cell, write_model
from unfreeze.study.lockstep import CellTask, lots_of, spans_of_candidate
from unfreeze.study.ranking import KeptEpochs, keeps_validation
from unfreeze.train.candidate_run import CandidateCheckpoint, CandidateRun, CandidateTask, TrainedCandidate
from unfreeze.train.checkpoint import END_SECONDS, CellCheckpoint, CheckpointTimer
from unfreeze.train.device import Compute
from unfreeze.train.micro_batch import MicroBatch
from unfreeze.train.phase_run import Diverged
from unfreeze.train.trainer import Callbacks, Trainer

FROZEN = "frozen rows at once"
"""In a state's extra: how many rows frozen stages take at once, by label, where memory ran short."""


@dataclass
class _Progress:
    """What is known of a cell while it runs; history and examples drawn by candidate.

    ``begun`` holds what candidates go on from, until they do; ``validation`` the logits that trained ones kept.
    """

    begun: dict[str, CandidateCheckpoint] = field(default_factory=dict)
    history: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    drawn: dict[str, int] = field(default_factory=dict)
    waiting: set[str] = field(default_factory=set)
    diverged: dict[str, Diverged] = field(default_factory=dict)
    chosen: tuple[str, TrainedCandidate] | None = None
    validation: dict[str, Mapping[str, Tensor]] = field(default_factory=dict)
    failed: bool = False


class GroupRun:
    """One group of cells on its way.

    Args:
        tasks: its cells, by id.
        backbones: gives a pretrained backbone for a strategy and seed; it is not changed.
        supply: gives inputs.
        store: the study directory.
        compute: device and precision.
        emit: is told what happens.
        on_failed: is told which cell failed, how, and what writes the files that it has all the same into a folder;
            the others go on.
    """

    def __init__(
        self,
        tasks: Mapping[str, CellTask],
        backbones: Callable[[Strategy, int], Backbone],
        supply: BatchSource,
        store: StudyDir,
        compute: Compute,
        emit: Emit,
        on_failed: Callable[[str, Exception, Callable[[Path], None]], None],
    ) -> None:
        self.tasks, self.backbones, self.supply, self.store = tasks, backbones, supply, store
        self.compute, self.emit, self.on_failed = compute, emit, on_failed
        self._cells = {name: _Progress(waiting=set(one.networks)) for name, one in tasks.items()}
        self._conditions = conditions(compute)
        self._saving = CheckpointTimer(store, self._bound_to, emit)
        self._short = list[str]()  # what is to be told of memory
        self._states = {name: self._saving.begin(name) for name in tasks}
        for state in self._states.values():  # before anything is computed
            for label, rows in state.extra.get(FROZEN, {}).items():
                for key, prefix in supply.prefixes.items():
                    if key.label == label:
                        prefix.take_fewer(rows)
        self._frozen = {key: prefix.batch for key, prefix in supply.prefixes.items()}

    def run(self) -> None:
        """Run every cell to its end."""
        self._tell()
        for name in self.tasks:
            self._begin(name)
        waiting = [
            (name, each)
            for name, one in self.tasks.items()
            for each in one.networks
            if each in self._cells[name].waiting
        ]
        for members in lots_of(self.tasks, waiting):
            alive = [member for member in members if not self._cells[member[0]].failed]
            if alive:
                self._train(alive)

    def _tell(self) -> bool:
        """Tell where memory ran short since the last time; return whether it did.

        Only between steps and lots: whoever is told may end the run there.
        """
        for key, prefix in self.supply.prefixes.items():
            if prefix.batch < self._frozen[key]:
                self._frozen[key] = prefix.batch
                self._short += prefix.said(key.label, self._conditions["device"])
        told, self._short = self._short, []
        for text in told:
            self.emit(Warned(text))
        return bool(told)

    def _begin(self, name: str) -> None:
        one, progress, state = self.tasks[name], self._cells[name], self._states.pop(name)
        drawn = sum(examples_of(one.spec, strategy) for strategy in one.spec.candidates.values())
        self.emit(CellStarted(name, drawn))
        histories = {**state.ended, **{candidate: rows for candidate, (_, rows) in state.diverged.items()}}
        progress.waiting -= histories.keys()
        progress.begun.update(state.candidates)
        progress.validation.update(state.ended_validation)
        for candidate, (text, _) in state.diverged.items():
            progress.diverged[candidate] = Diverged(text, state.diverged_best.get(candidate))
        histories |= {candidate: begun.history for candidate, begun in state.candidates.items()}
        for candidate, rows in histories.items():
            progress.history[candidate] = [{"candidate": candidate, **row} for row in rows]
            progress.drawn[candidate] = rows[-1]["examples"] if rows else 0
        for candidate, begun in state.candidates.items():
            progress.drawn[candidate] += begun.position.totals.examples
            self.emit(CellResumed(name, candidate, begun.position.epoch, sum(progress.drawn.values())))

    def _train(self, members: Sequence[tuple[str, str]]) -> None:
        try:
            name, candidate = members[0]
            spec = self.tasks[name].spec
            strategy, seed = spec.candidates[candidate], spec.cell.seed
            train, looked_at = self.supply.images(spec.train), self.supply.images(spec.selection.validation)
            spans = [span for member in members for span in spans_of_candidate(self.tasks[member[0]], member[1])]
            stream = self.supply.stream(
                strategy,
                spec.regime,
                seed,
                train,
                {span.cut for span in spans},
                max(span.stop for span in spans),
            )
        except BrokenPipeError:
            raise
        except Exception as error:  # whatever it is, the study's other cells go on
            for name in dict.fromkeys(name for name, _ in members):
                self._fail(name, error)
            return
        validation = partial(self.supply.validation, strategy, spec.regime, seed, looked_at)
        trainer = Trainer(stream, validation, Callbacks(self._between, self._stepped, self._epoch_ended, self._ended))
        for member in members:
            try:
                trainer.add(member, self._candidate_run(*member))
            except Exception as error:  # the others go on
                self._ended(member, error)
        trainer.fit()
        self._tell()

    def _between(self, runs: Mapping[tuple[str, str], CandidateRun]) -> None:
        """Save where the cells stand if it is time to, or if whoever is told ends the run here."""

        def save() -> None:
            names = dict.fromkeys(name for name, _ in runs if not self._cells[name].failed)
            self._saving.save({name: partial(self._state, name, runs) for name in names})

        try:
            lowered = self._tell()
            self.emit(BetweenSteps())
        except BaseException:
            save()
            raise
        if lowered or self._saving.due():  # what was lowered then goes on as it did, whenever this run ends
            save()

    def _state(self, name: str, runs: Mapping[tuple[str, str], CandidateRun]) -> CellCheckpoint:
        """Return where a cell stands; ``runs`` are its candidates in training."""
        progress, networks = self._cells[name], self.tasks[name].networks
        candidates = dict(progress.begun)  # those whose turn has not come again
        candidates |= {candidate: run.state_dict() for (cell, candidate), run in runs.items() if cell == name}
        if progress.chosen is not None:
            best, trained = progress.chosen
            candidates[best] = trained.state_dict(len(networks[best].strategy.phases))
        first = next(iter(networks))  # whose weights stay if all diverge
        ended = networks.keys() - candidates.keys() - progress.waiting
        return CellCheckpoint(
            candidates,
            {each: _plain(progress.history[each]) for each in networks if each in ended - progress.diverged.keys()},
            {each: (str(error), _plain(progress.history[each])) for each, error in progress.diverged.items()},
            {each: error.best for each, error in progress.diverged.items() if each == first},
            {each: kept for each, kept in progress.validation.items() if each in ended},
            {FROZEN: {key.label: prefix.batch for key, prefix in self._prefixes(name).items() if prefix.is_short}},
        )

    def _prefixes(self, name: str) -> dict[PrefixKey, Prefix]:
        """Return the frozen networks that a cell's candidates may use."""
        keys = dict.fromkeys(prefix_of(strategy) for strategy in self.tasks[name].spec.candidates.values())
        return {key: self.supply.prefixes[key] for key in keys if key in self.supply.prefixes}

    def _bound_to(self, name: str) -> dict[str, Any]:
        spec = self.tasks[name].spec
        return {
            "settings": spec.fingerprint,
            "data": spec.data_fingerprint,
            "engines": [dict(prefix.calibration.engine) for prefix in self._prefixes(name).values()],
        } | self._conditions

    def _candidate_run(self, name: str, candidate: str) -> CandidateRun:
        one, progress = self.tasks[name], self._cells[name]
        spec, strategy, lowest = one.spec, one.spec.candidates[candidate], min(one.networks[candidate].cuts)
        progress.history.setdefault(candidate, [])
        state = progress.begun.pop(candidate, None) or CandidateCheckpoint()

        def on_less() -> None:
            self._short += self._said(spec.cell.strategy, strategy, micro_batch)

        micro_batch = MicroBatch(state.micro_batch, on_less)
        task = CandidateTask(
            strategy=strategy,
            regime=spec.regime,
            metric=spec.study.metric,
            seed=spec.cell.seed,
            classes=len(spec.catalog.classes),
            images=len(spec.train),
            class_weights=spec.class_weights,
            prefix_sha256=self.supply.prefix_sha256(prefix_of(strategy), lowest),
            keep_validation=keeps_validation(spec),
        )
        backbone = own_copy(self.backbones(strategy, spec.cell.seed), lowest)
        return CandidateRun(task, backbone, self.compute, micro_batch, state)

    def _stepped(self, member: tuple[str, str], run: CandidateRun) -> None:
        name, candidate = member
        drawn = self._cells[name].drawn
        drawn[candidate] = run.examples
        self.emit(Progress(name, candidate, run.epoch, sum(drawn.values())))

    def _epoch_ended(self, member: tuple[str, str], row: dict[str, Any]) -> None:
        name, candidate = member
        history = self._cells[name].history[candidate]
        history.append({"candidate": candidate, **row})
        self.emit(EpochEnded(name, history[-1]))

    def _ended(self, member: tuple[str, str], result: TrainedCandidate | Exception) -> None:
        name, candidate = member
        progress = self._cells[name]
        progress.waiting.discard(candidate)
        if progress.failed:
            return
        if isinstance(result, TrainedCandidate):
            progress.validation[candidate] = result.validation
            best = None if progress.chosen is None else progress.chosen[1].best["val_metric"]
            ahead = best is None or metrics.is_better(
                self.tasks[name].spec.study.metric, result.best["val_metric"], best
            )
            # Of equals the first one asked for wins, whichever ended first.
            equal = progress.chosen is not None and result.best["val_metric"] == best
            order = list(self.tasks[name].networks)
            if ahead or (equal and progress.chosen and order.index(candidate) < order.index(progress.chosen[0])):
                progress.chosen = candidate, result
        elif isinstance(result, Diverged):
            progress.diverged[candidate] = result
        else:
            self._fail(name, result, candidate)
            return
        if not progress.waiting:
            try:
                self._finish(name)
            except BrokenPipeError:
                raise
            except Exception as error:  # whatever it is, the other cells go on
                self._fail(name, error, progress.chosen and progress.chosen[0])

    def _finish(self, name: str) -> None:
        one, progress = self.tasks[name], self._cells[name]
        if progress.chosen is None:
            raise next(progress.diverged[candidate] for candidate in one.networks if candidate in progress.diverged)
        if self._saving.due(END_SECONDS):
            self._saving.save({name: partial(self._state, name, {})})
        result = self.store.finished(name, one.spec.fingerprint)  # by another run, which locks alone prevent
        if result is None:
            with self.store.new_cell(name, one.spec.fingerprint) as folder:
                self._write_history(name, folder)
                result = self._write(name, folder, *progress.chosen)
        progress.chosen = None  # its weights are on disk
        self._saving.remove(name)
        self.emit(CellFinished(name, result))

    def _write(self, name: str, folder: Path, candidate: str, trained: TrainedCandidate) -> dict[str, Any]:
        one, progress = self.tasks[name], self._cells[name]

        def warnings() -> list[str]:
            strategy, key = one.spec.candidates[candidate], prefix_of(one.spec.candidates[candidate])
            prefix = self.supply.prefixes.get(key)
            return [
                *(
                    f"candidate {each} diverged: {progress.diverged[each]}"
                    for each in one.networks
                    if each in progress.diverged
                ),
                *self._said(one.spec.cell.strategy, strategy, trained.micro_batch),
                *(prefix.said(key.label, self._conditions["device"]) if prefix else []),
            ]

        rows = [row for candidate in one.networks for row in progress.history[candidate]]
        times = Times(
            per_epoch=float(np.mean([row["seconds"] for row in trained.history])),
            total=sum(row["seconds"] for row in rows),
            shared=self._shared_seconds(one),
        )
        tried = {
            each: KeptEpochs(progress.history[each], progress.validation[each])
            for each in one.networks
            if each in progress.validation
        }
        chosen = ChosenCandidate(candidate, trained, one.networks[candidate], tried)
        return finish_cell(one.spec, chosen, self.supply, folder, self.compute, times, warnings)

    def _said(self, name: str, strategy: Strategy, micro_batch: MicroBatch) -> list[str]:
        return micro_batch.said(name, strategy.batch_size, self._conditions["device"])

    def _shared_seconds(self, one: CellTask) -> float:
        facts = self.supply.facts
        return sum(
            facts.seconds[key] / facts.computed[key] * len(rows) * one.shares.get(key, 0.0)
            for key, rows in one.reads.rows.items()
            if facts.computed.get(key)
        )

    def _write_history(self, name: str, folder: Path) -> None:
        rows = [row for candidate in self.tasks[name].networks for row in self._cells[name].history.get(candidate, [])]
        if rows:
            table = pd.DataFrame(rows, columns=list(HISTORY_COLUMNS))
            write_table(folder / "history.csv", table)

    def _fail(self, name: str, error: Exception, candidate: str | None = None) -> None:
        if isinstance(error, DiskFull) or is_death(error):  # so it would be for the other cells
            raise error
        progress = self._cells[name]
        if is_out_of_memory(error) and not isinstance(error, MemoryError):  # Python's own is not the device's
            strategies = self.tasks[name].spec.candidates
            strategy = strategies[next(iter(strategies)) if candidate is None else candidate]
            least = error.least if isinstance(error, OutOfMemory) else 1
            size, precision, device = strategy.image_size, self.compute.precision, self.compute.device
            error = no_room(strategy.backbone.name, size, precision, device, least)
        if not progress.failed:
            progress.failed, progress.chosen = True, None
            self.on_failed(name, error, partial(self._write_failed, name, error))
            if isinstance(error, Diverged):
                self._saving.remove(name)

    def _write_failed(self, name: str, error: Exception, folder: Path) -> None:
        """Write what a cell has all the same that failed: its history, and the best weights before it diverged."""
        self._write_history(name, folder)
        if not isinstance(error, Diverged) or not error.best:
            return
        spec = self.tasks[name].spec
        strategy = next(iter(spec.candidates.values()))
        lowest = min(next(iter(self.tasks[name].networks.values())).cuts)
        prefix = self.supply.prefix_sha256(prefix_of(strategy), lowest)
        write_model(folder, error.best, prefix, strategy.backbone.name)


def _plain(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return a candidate's rows as it made them, without its name."""
    return [{name: value for name, value in row.items() if name != "candidate"} for row in rows]
