"""Train one candidate, phase by phase: networks, history, best weights, state."""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypedDict

import torch
from torch import Tensor

from unfreeze.config.resolve import Strategy, expected_epochs
from unfreeze.config.schema import Metric, RegimeConfig
from unfreeze.inputs.loader import TimedBatch
from unfreeze.inputs.sampler import epoch_ends, examples_after
from unfreeze.model.backbone import Backbone, reinitialise
from unfreeze.model.cuts import cuts_of, feed_cuts, fresh_from
from unfreeze.model.network import Network, build_network, frozen_state, load_trained_state, tensors_hash, trained_state
from unfreeze.model.summary import count_parameters
from unfreeze.train.device import Compute
from unfreeze.train.early_stopping import StoppingState
from unfreeze.train.gradients import Trainee
from unfreeze.train.heads import build_head
from unfreeze.train.micro_batch import MicroBatch, batch_norm_trains, has_lone_batch, lone_batch
from unfreeze.train.optimizers import build_optimizer, moments, set_moments
from unfreeze.train.phase_run import Diverged, EpochRow, PhaseRun, PhaseTask, Position


@dataclass(frozen=True)
class CandidateTask:
    """Settings of a candidate's training.

    Attributes:
        strategy: with every tuned value filled in.
        regime: from which the length of an epoch follows.
        metric: the study's metric, measured on validation after each epoch.
        seed: of the streams init, order and dropout.
        class_count: number of classes.
        image_count: number of training images, repeated ones counted each time.
        class_weights: of the training loss; None weights all images alike.
        prefix_sha256: over the tensors of the stages that no phase trains.
        keep_validation: keep the logits of the validation images: of each epoch that may be restored as the best, else
            of the last. Cross-fitting chooses among them once more (``statistics.crossfit``).
    """

    strategy: Strategy
    regime: RegimeConfig
    metric: Metric
    seed: int
    class_count: int
    image_count: int
    class_weights: Sequence[float] | None
    prefix_sha256: str
    keep_validation: bool = False

    @property
    def restores_best(self) -> bool:
        """Whether the best weights are restored at the end of a phase."""
        stopping = self.strategy.early_stopping
        return stopping is not None and stopping.restore_best


class CandidateState(TypedDict):
    """State of a candidate: with its task, all that the rest of its training depends on.

    Attributes:
        phase: number of the phase that it is in; the number of phases where it is trained to its end.
        position: of training, counted over all phases.
        stopped: whether early stopping ended the last phase.
        history: rows of the epochs so far.
        weights: the trained tensors.
        best: the best of them so far, where they are kept.
        moments: of the optimiser.
        validation: logits of the validation images by epoch, where they are kept.
        micro_batch: how many rows of a batch are computed at once, see ``MicroBatch.record``.
    """

    phase: int
    position: Position
    stopped: bool
    history: Sequence[EpochRow]
    weights: Mapping[str, Tensor]
    best: Mapping[str, Tensor]
    moments: Mapping[str, Tensor]
    validation: Mapping[str, Tensor]
    micro_batch: Mapping[str, int]


@dataclass(frozen=True)
class TrainedCandidate:
    """A trained candidate.

    Attributes:
        network: with the weights of the reported epoch; it begins after ``cut`` stages, which nothing has trained.
        backbone: whose tensors the network shares.
        cut: number of stages before the network.
        phases: number of its phases.
        history: rows of its epochs.
        best_epoch: the reported epoch.
        stopped_by: ``early_stopping`` or ``epochs``.
        params_total, params_trained: numbers of parameters.
        prefix_sha256: over the tensors of the stages before the network.
        micro_batch: how many rows of a batch it computes at once.
        validation: logits of the validation images by epoch, where they are kept.
    """

    network: Network
    backbone: Backbone
    cut: int
    phases: int
    history: Sequence[EpochRow]
    best_epoch: int
    stopped_by: str
    params_total: int
    params_trained: int
    prefix_sha256: str
    micro_batch: MicroBatch
    validation: Mapping[str, Tensor]

    @property
    def best(self) -> EpochRow:
        """The row of the reported epoch."""
        return next(row for row in self.history if row.epoch == self.best_epoch)

    def state_dict(self) -> CandidateState:
        """Return the state from which a ``CandidateRun`` gives this candidate again."""
        last = self.history[-1]
        return CandidateState(
            phase=self.phases,
            position=Position(last.epoch, last.step, StoppingState(best_epoch=self.best_epoch)),
            stopped=self.stopped_by == "early_stopping",
            history=self.history,
            weights=trained_state(self.network, self.backbone),
            best={},
            moments={},
            validation=self.validation,
            micro_batch=self.micro_batch.record,
        )


class CandidateRun:
    """Training of one candidate, from its first step or a saved state to its reported weights.

    Args:
        task: its settings.
        backbone: its own: trained in place. Stages that stay frozen may share tensors with others.
        compute: device and precision.
        micro_batch: how many rows of a batch it computes at once; fewer from where memory runs short.
        state: of an earlier run of the same task, see ``state_dict``. None: from the first step.

    Raises:
        UserError: a cut does not exist, or BatchNorm would train on a batch of one image.
    """

    def __init__(
        self,
        task: CandidateTask,
        backbone: Backbone,
        compute: Compute,
        micro_batch: MicroBatch,
        state: CandidateState | None = None,
    ) -> None:
        strategy = task.strategy
        self.task, self.backbone, self.compute, self.micro_batch = task, backbone, compute, micro_batch
        self.history: list[EpochRow] = []
        self._head = build_head(strategy.head, backbone, task.class_count, task.seed)
        self._cuts = cuts_of(strategy, backbone)
        self._feeds = feed_cuts(self._cuts)
        self._ends = epoch_ends(task.image_count, strategy.batch_size, task.regime, expected_epochs(strategy))
        self._fresh_from = fresh_from(strategy, self._cuts, len(backbone.stages))
        self._lowest = min(self._cuts)
        # All tensors that any phase trains: what is restored, saved and counted.
        trained = build_network(backbone, self._head, self._lowest, "train", start=self._lowest)
        self._trained = trained.to(compute.device)
        weights = task.class_weights
        self._class_weights = None if weights is None else torch.tensor(weights, device=compute.device)
        self._best: dict[str, Tensor] = {}
        self._validation: dict[str, Tensor] = {}
        self._number = 0
        self._phase: PhaseRun | None = None
        self._stopping, self._stopped = StoppingState(), False
        self._frozen_hash = ""  # of the frozen stages in the phase's network
        if state is None:
            self._begin_phase(0)
        else:
            self.load_state_dict(state)

    @property
    def is_over(self) -> bool:
        """Whether all phases are done."""
        return self._phase is None

    @property
    def epoch_is_over(self) -> bool:
        """Whether all steps of the epoch are done, so that validation comes next."""
        return self._now.epoch_is_over

    @property
    def step(self) -> int:
        """The next step, from 0."""
        return self._now.position.step

    @property
    def epoch(self) -> int:
        """The epoch of the next step, from 1."""
        return self._now.position.epoch

    @property
    def cut(self) -> int:
        """Number of stages that its inputs have passed."""
        return self._feeds[self._number]

    @property
    def examples(self) -> int:
        """Training images drawn so far."""
        return examples_after(self.task.image_count, self.task.strategy.batch_size, self.step)

    def train_step(self, fed: TimedBatch) -> None:
        """Take one optimiser step on a batch.

        Raises:
            Diverged: the loss or a gradient is infinite or NaN; carries the best weights so far, if they are kept.
            OutOfMemory: not even one row fits into the device's memory.
        """
        with self._carrying_best():
            self._now.train_step(fed)

    def validation_step(self, fed: TimedBatch) -> None:
        """Predict one batch of validation images.

        Raises:
            OutOfMemory: not even one row fits into the device's memory.
        """
        self._now.validation_step(fed)

    def end_epoch(self) -> EpochRow:
        """Score the epoch, keep the best weights, go to the next epoch or phase; return the epoch's row.

        Raises:
            Diverged: the validation loss is infinite or NaN; carries the best weights so far, if they are kept.
        """
        phase = self._now
        with self._carrying_best():
            row, logits = phase.end_epoch(self.examples)
        if self.task.restores_best and phase.position.stopping.best_epoch == row.epoch:
            self._best.update(trained_state(self._trained, self.backbone))
        if self.task.keep_validation:
            if not self.task.restores_best:
                self._validation.clear()
            self._validation[str(row.epoch)] = torch.from_numpy(logits)
        self.history.append(row)
        if phase.is_over:
            self._end_phase(phase)
        return row

    def state_dict(self) -> CandidateState:
        """Return the state to resume from, between two steps. Tensors are the run's own, not copies."""
        return CandidateState(
            phase=self._number,
            position=self._now.position,
            stopped=False,
            history=list(self.history),
            weights=trained_state(self._trained, self.backbone),
            best=dict(self._best),
            moments=moments(self._now.optimizer),
            validation=dict(self._validation),
            micro_batch=self.micro_batch.record,
        )

    def load_state_dict(self, state: CandidateState) -> None:
        """Continue from the state of another run of the same task. Tensors are copied, but for the best weights."""
        self.history = list(state["history"])
        self._best, self._validation = dict(state["best"]), dict(state["validation"])
        self._stopping, self._stopped = state["position"].stopping, state["stopped"]
        for number in range(state["phase"]):  # entered, not trained: what they trained is among the weights
            self._enter_phase(number)
        if state["phase"] < len(self._cuts):
            self._begin_phase(state["phase"], state)
            return
        load_trained_state(self._trained, self.backbone, state["weights"])
        self._number, self._phase = state["phase"], None

    def result(self) -> TrainedCandidate:
        """Return the trained candidate, once all phases are done.

        Raises:
            RuntimeError: stages that should be frozen have changed, which is a bug.
        """
        _check_frozen(self.backbone, self._lowest, self.task.prefix_sha256)
        last = self.history[-1].epoch
        return TrainedCandidate(
            network=self._trained,
            backbone=self.backbone,
            cut=self._lowest,
            phases=len(self._cuts),
            history=self.history,
            best_epoch=(self._stopping.best_epoch or last) if self.task.restores_best else last,
            stopped_by="early_stopping" if self._stopped else "epochs",
            params_total=count_parameters(self.backbone.model) + count_parameters(self._head),
            params_trained=count_parameters(self._trained.suffix) + count_parameters(self._head),
            prefix_sha256=self.task.prefix_sha256,
            micro_batch=self.micro_batch,
            validation=self._validation,
        )

    @property
    def _now(self) -> PhaseRun:
        if self._phase is None:
            raise RuntimeError("the candidate is trained to its end and takes no more steps")
        return self._phase

    def _enter_phase(self, number: int) -> Network:
        """Build a phase's network, which its micro-batches then know; ``reinit`` draws fresh weights for its stages."""
        phase, cut = self.task.strategy.phases[number], self._cuts[number]
        if phase.reinit:
            reinitialise(self.backbone, cut, self.task.seed)
        fresh, start = self._fresh_from[number], self._feeds[number]
        network = build_network(self.backbone, self._head, cut, phase.batch_norm, fresh, start)
        network.to(self.compute.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.micro_batch.add_network(network.suffix)
        return network

    def _begin_phase(self, number: int, state: CandidateState | None = None) -> None:
        """Start a phase, or resume it from a state."""
        strategy, cut, start = self.task.strategy, self._cuts[number], self._feeds[number]
        network, phase = self._enter_phase(number), strategy.phases[number]
        if state is not None:
            load_trained_state(self._trained, self.backbone, state["weights"])
        _check_batches(network, self.task.image_count, strategy.batch_size)
        self._frozen_hash = tensors_hash(frozen_state(self.backbone, cut)) if cut > start else ""
        earlier = [row for row in self.history if row.phase < number]
        epoch, step = (earlier[-1].epoch + 1, earlier[-1].step) if earlier else (1, 0)
        ends = self._ends[epoch - 1 : epoch - 1 + phase.epochs]
        stopping = strategy.early_stopping
        task = PhaseTask(number, phase, self.task.seed, epoch, step, ends, stopping, self.task.metric)
        optimizer = build_optimizer([*network.suffix.stages, self._head], phase.optimizer)
        best = StoppingState(self._stopping.best, self._stopping.best_epoch)
        position = Position(epoch, step, best)
        if state is not None:
            position = state["position"]
            set_moments(optimizer, state["moments"])
        trainee = Trainee(network, start < len(self.backbone.stages), self._class_weights)
        self._number = number
        self._phase = PhaseRun(task, trainee, optimizer, self.compute, self.micro_batch, position)

    def _end_phase(self, phase: PhaseRun) -> None:
        """Restore the best weights and start the next phase, if there is one."""
        self._stopping, self._stopped = phase.position.stopping, phase.stopped
        self._phase = None
        if self._frozen_hash:
            _check_frozen(self.backbone, self._cuts[self._number], self._frozen_hash)
        if self._best:
            load_trained_state(self._trained, self.backbone, self._best)
        if self._number + 1 < len(self._cuts):
            self._begin_phase(self._number + 1)

    @contextlib.contextmanager
    def _carrying_best(self) -> Iterator[None]:
        try:
            yield
        except Diverged as error:
            raise Diverged(str(error), self._best) from error


def _check_batches(network: Network, image_count: int, batch_size: int) -> None:
    """Refuse a batch of one image where BatchNorm would have to take its statistics from it."""
    if batch_norm_trains(network.suffix) and has_lone_batch(image_count, batch_size):
        raise lone_batch(batch_size, [image_count])


def _check_frozen(backbone: Backbone, frozen: int, expected: str) -> None:
    if tensors_hash(frozen_state(backbone, frozen)) != expected:
        raise RuntimeError(f"the frozen stages of {backbone.name} changed while the others trained; this is a bug")
