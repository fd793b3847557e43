"""Resolve a study: fill in its defaults, expand its sweeps, list its cells and candidates."""

import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from unfreeze.config.choices import Choices, OptimizerDefaults
from unfreeze.config.schema import (
    BackboneConfig,
    EarlyStopping,
    Head,
    OptimizerConfig,
    PhaseConfig,
    RegimeConfig,
    Resize,
    ScheduleConfig,
    StrategyConfig,
    StudyConfig,
    Train,
)

NAMED = {"backbone", "optimizer", "schedule"}
"""Keys whose value may be a name: optimizer: sgd means optimizer: {name: sgd}."""


@dataclass(frozen=True)
class Optimizer:
    """An optimiser with all values resolved; ``lr`` is the peak learning rate, ``momentum`` only used by SGD."""

    name: str
    lr: float
    momentum: float
    weight_decay: float
    layer_decay: float


@dataclass(frozen=True)
class Phase:
    """A phase with all values resolved."""

    train: Train
    epochs: int
    optimizer: Optimizer
    schedule: ScheduleConfig
    batch_norm: Literal["frozen", "train"]
    reinit: bool
    label_smoothing: float


@dataclass(frozen=True)
class Strategy:
    """A strategy with all values resolved; ``early_stopping`` None means off."""

    backbone: BackboneConfig
    image_size: int
    resize: Resize
    batch_size: int
    head: Head
    phases: tuple[Phase, ...]
    early_stopping: EarlyStopping | None


@dataclass(frozen=True)
class Cell:
    """A unit of work: one strategy, regime and seed, and with folds one fold."""

    strategy: str
    regime: str
    seed: int
    fold: int | None = None

    @property
    def id(self) -> str:
        """Name of the cell and of its directory: ``head.small.s0``, with folds ``head.small.s0.f1``."""
        return f"{self.strategy}.{self.regime}.s{self.seed}" + ("" if self.fold is None else f".f{self.fold}")


def cells(study: StudyConfig) -> list[Cell]:
    """Return all cells; seeds outermost, so that an interrupted study has complete grids."""
    folds: Sequence[int | None] = range(study.split.folds) if study.split.folds else [None]
    return [
        Cell(strategy, regime, seed, fold)
        for seed, fold, strategy, regime in itertools.product(study.seeds, folds, study.strategies, study.regimes)
        if seed in (study.strategies[strategy].seeds or study.seeds)
    ]


def resolve(study: StudyConfig, asked: StrategyConfig, optimizers: Mapping[str, OptimizerDefaults]) -> Strategy:
    """Return a strategy with the study's values and the defaults filled in.

    Raises:
        ValueError: random weights would stay frozen.
    """
    backbone = asked.backbone or study.backbone
    given = backbone.weights if "weights" in backbone.model_fields_set else None
    weights = asked.weights or given or study.weights or backbone.weights
    epochs = asked.epochs or study.epochs
    stopping = study.early_stopping if asked.early_stopping is None else asked.early_stopping
    phases = tuple(_phase(phase, epochs, weights == "none", optimizers) for phase in asked.phases or (asked,))
    if weights == "none" and any(phase.train != "all" for phase in phases):
        raise ValueError(
            "weights: none with frozen stages would keep random weights; use train: all, or pretrained weights"
        )
    return Strategy(
        backbone=BackboneConfig(name=backbone.name, weights=weights),
        image_size=asked.image_size or study.image_size,
        resize=asked.resize or study.resize,
        batch_size=asked.batch_size or study.batch_size,
        head=asked.head,
        phases=phases,
        early_stopping=stopping or None,
    )


def _phase(asked: PhaseConfig, epochs: int, scratch: bool, optimizers: Mapping[str, OptimizerDefaults]) -> Phase:
    if asked.train is None:
        raise ValueError("train is missing; set it to all, head or {last: k}")
    usual = optimizers[asked.optimizer.name]
    rate = usual.head_lr if asked.train == "head" else usual.fresh_lr if scratch or asked.reinit else usual.stages_lr
    return Phase(
        train=asked.train,
        epochs=asked.epochs or epochs,
        optimizer=_optimizer(asked.optimizer, rate, usual.weight_decay),
        schedule=asked.schedule,
        batch_norm=asked.batch_norm,
        reinit=asked.reinit,
        label_smoothing=asked.label_smoothing,
    )


def _optimizer(asked: OptimizerConfig, lr: float, weight_decay: float) -> Optimizer:
    return Optimizer(
        name=asked.name,
        lr=lr if asked.lr is None else asked.lr,
        momentum=asked.momentum,
        weight_decay=weight_decay if asked.weight_decay is None else asked.weight_decay,
        layer_decay=asked.layer_decay,
    )


def swept(study: StudyConfig) -> StudyConfig:
    """Return the study with each sweep expanded in its place: one regime per value, named ``NAME_VALUE``.

    Raises:
        ValueError: a sweep makes the name of another regime.
    """
    regimes: dict[str, RegimeConfig] = {}
    makers: dict[str, str] = {}
    for name, regime in study.regimes.items():
        values = regime.sweep.train_per_class if regime.sweep else [None]
        for value in values:
            made = name if value is None else f"{name}_{value}"
            same = next((other for other in regimes if other.lower() == made.lower()), None)
            if same is not None:
                sweeping, wanted, there = (makers[same], same, made) if value is None else (name, made, same)
                raise ValueError(f"regimes: the sweep of {sweeping} makes {wanted}, but {there} already exists")
            regimes[made] = (
                regime if value is None else regime.model_copy(update={"sweep": None, "train_per_class": value})
            )
            makers[made] = name
    return study.model_copy(update={"regimes": regimes})


def expected_epochs(strategy: Strategy) -> int:
    """Return the number of epochs of all phases, without early stopping."""
    return sum(phase.epochs for phase in strategy.phases)


def candidates(study: StudyConfig, name: str, choices: Choices) -> dict[str, Strategy]:
    """Return the resolved strategy of each candidate: all combinations of tuned values, or a single one named "".

    Raises:
        ValueError: a tuned path does not exist, or the strategy is invalid (also as pydantic's ValidationError).
    """
    asked = study.strategies[name]
    plain = asked.model_dump(exclude_unset=True, exclude={"tune"})
    found: dict[str, Strategy] = {}
    for values in itertools.product(*asked.tune.values()):
        chosen: Any = plain
        for path, value in zip(asked.tune, values, strict=True):
            try:
                chosen = put(chosen, path.split("."), value)
            except ValueError as error:
                raise ValueError(f"tune: {path}: {error}") from error
        label = ",".join(f"{path}={_label(value)}" for path, value in zip(asked.tune, values, strict=True))
        found[label] = resolve(study, StrategyConfig.model_validate(chosen, context=choices), choices.optimizers)
    return found


def _label(value: Any) -> str:
    return json.dumps(value, default=str) if isinstance(value, dict | list | tuple | bool | None) else str(value)


def put(data: Any, path: Sequence[str], value: Any) -> Any:
    """Return a copy of plain data with the value at a path set; numbers in the path index lists.

    Raises:
        ValueError: the path leads through a value that has no such key.
    """
    if not path:
        return value
    key, *rest = path
    if isinstance(data, list | tuple):
        if not (key.isascii() and key.isdigit() and len(key) < 10 and int(key) < len(data)):
            raise ValueError(f"entry {key} does not exist in a list of {len(data)}; entries count from 0")
        return [put(entry, rest, value) if index == int(key) else entry for index, entry in enumerate(data)]
    if not isinstance(data, dict | None):
        raise ValueError(f"{data!r} has no key {key!r}")
    inner = (data or {}).get(key)
    if rest and key in NAMED and isinstance(inner, str):  # a name stands for a mapping
        inner = {"name": inner}
    return {**(data or {}), key: put(inner, rest, value)}
