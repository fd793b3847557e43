"""Fill in every default of a study, and list its cells and candidates."""

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
"""Keys whose value may be a word: optimizer: sgd is optimizer: {name: sgd}."""


@dataclass(frozen=True)
class Optimizer:
    """An optimiser with its peak learning rate and weight decay; momentum is SGD's."""

    name: str
    lr: float
    momentum: float
    weight_decay: float
    layer_decay: float


@dataclass(frozen=True)
class Phase:
    """A stretch of training, all values known."""

    train: Train
    epochs: int
    optimizer: Optimizer
    schedule: ScheduleConfig
    batch_norm: Literal["frozen", "train"]
    reinit: bool
    label_smoothing: float


@dataclass(frozen=True)
class Strategy:
    """One way of training, all values known; ``early_stopping`` None means off."""

    backbone: BackboneConfig
    image_size: int
    resize: Resize
    batch_size: int
    head: Head
    phases: tuple[Phase, ...]
    early_stopping: EarlyStopping | None


@dataclass(frozen=True)
class Cell:
    """One strategy x one regime x one seed (x one fold)."""

    strategy: str
    regime: str
    seed: int
    fold: int | None = None

    @property
    def id(self) -> str:
        """Readable and a directory's name: ``head.small.s0``, with folds ``head.small.s0.f1``."""
        return f"{self.strategy}.{self.regime}.s{self.seed}" + ("" if self.fold is None else f".f{self.fold}")


def cells(study: StudyConfig) -> list[Cell]:
    """Return every cell; seeds outermost, so that an interrupted study holds whole grids."""
    folds: Sequence[int | None] = range(study.split.folds) if study.split.folds else [None]
    return [
        Cell(strategy, regime, seed, fold)
        for seed, fold, strategy, regime in itertools.product(study.seeds, folds, study.strategies, study.regimes)
        if seed in (study.strategies[strategy].seeds or study.seeds)
    ]


def resolve(study: StudyConfig, asked: StrategyConfig, optimizers: Mapping[str, OptimizerDefaults]) -> Strategy:
    """Fill in the study's values and the defaults of one strategy.

    Raises:
        ValueError: random weights would stay frozen.
    """
    backbone = asked.backbone or study.backbone
    said = backbone.weights if "weights" in backbone.model_fields_set else None
    weights = asked.weights or said or study.weights or backbone.weights
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
        raise ValueError("train is missing; say all, head or {last: k}")
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
    """Return the study with each regime that sweeps spelled out in its place: one a value, named ``NAME_VALUE``.

    Raises:
        ValueError: a name that a sweep makes is another regime's.
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
                raise ValueError(f"regimes: the sweep of {sweeping} makes {wanted}, but {there} is there already")
            regimes[made] = (
                regime if value is None else regime.model_copy(update={"sweep": None, "train_per_class": value})
            )
            makers[made] = name
    return study.model_copy(update={"regimes": regimes})


def expected_epochs(strategy: Strategy) -> int:
    """Return the epochs of all phases together, if nothing stops them early."""
    return sum(phase.epochs for phase in strategy.phases)


def candidates(study: StudyConfig, name: str, choices: Choices) -> dict[str, Strategy]:
    """Return a strategy's settings by candidate: every combination of the tuned values, or one named "" without them.

    Raises:
        ValueError: a tuned path does not exist (pydantic's ValidationError is one), or the strategy cannot be.
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
        label = ",".join(f"{path}={_shown(value)}" for path, value in zip(asked.tune, values, strict=True))
        found[label] = resolve(study, StrategyConfig.model_validate(chosen, context=choices), choices.optimizers)
    return found


def _shown(value: Any) -> str:
    return json.dumps(value, default=str) if isinstance(value, dict | list | tuple | bool | None) else str(value)


def put(data: Any, path: Sequence[str], value: Any) -> Any:
    """Return a copy of plain data with one value deep inside set; numbers in the path index lists.

    Raises:
        ValueError: the path leads through something that has no such key.
    """
    if not path:
        return value
    key, *rest = path
    if isinstance(data, list | tuple):
        if not (key.isascii() and key.isdigit() and len(key) < 10 and int(key) < len(data)):
            raise ValueError(f"there is no entry {key} in a list of {len(data)}; entries count from 0")
        return [put(entry, rest, value) if index == int(key) else entry for index, entry in enumerate(data)]
    if not isinstance(data, dict | None):
        raise ValueError(f"{data!r} has no key {key!r}")
    inner = (data or {}).get(key)
    if rest and key in NAMED and isinstance(inner, str):  # a word stands for the mapping with that name
        inner = {"name": inner}
    return {**(data or {}), key: put(inner, rest, value)}
