"""Networks of a study: what each strategy freezes and trains, phase by phase."""

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from unfreeze.activations.keys import PrefixKey, prefix_of
from unfreeze.config.identity import cell_record
from unfreeze.config.resolve import Cell, Optimizer, Strategy, candidates, cells
from unfreeze.config.schema import LastStages, StudyConfig, Train
from unfreeze.errors import UserError
from unfreeze.inputs.augment import Preprocessing
from unfreeze.inputs.preprocess import BaseTransform
from unfreeze.model.backbone import Backbone, load_backbone
from unfreeze.model.cuts import cuts_of, fresh_from
from unfreeze.model.summary import HeadInfo, StageInfo, describe, describe_head
from unfreeze.study.registries import registered
from unfreeze.train.heads import build_head
from unfreeze.train.optimizers import OPTIMIZERS

BackboneKey = tuple[str, str, int]
"""A backbone: timm's name, what the study calls its weights, image size."""


@dataclass(frozen=True)
class NetworkPlan:
    """Stages and head of a candidate's network, and the cuts of its phases.

    Attributes:
        strategy: its settings.
        stages: the backbone's stages.
        head: the new classifier.
        cuts: number of frozen stages in each phase.
    """

    strategy: Strategy
    stages: tuple[StageInfo, ...]
    head: HeadInfo
    cuts: tuple[int, ...]

    @property
    def flops(self) -> int:
        """FLOPs of one image through the whole network, a multiply-add counted as two: the same on every machine."""
        return self.flops_after(0)

    def flops_after(self, cut: int) -> int:
        """Return FLOPs of one image from ``cut`` stages on, the head's included."""
        return sum(stage.flops for stage in self.stages[cut:]) + self.head.flops


@dataclass(frozen=True)
class Plan:
    """A study's cells and networks.

    Attributes:
        cells: in the order they run.
        candidates: by strategy, the networks of its candidates by name.
        backbones: with their initial weights; none where the plan was made without weights.
    """

    cells: tuple[Cell, ...]
    candidates: dict[str, dict[str, NetworkPlan]]
    backbones: Mapping[BackboneKey, Backbone] = field(default_factory=dict, compare=False, repr=False)

    @property
    def networks(self) -> dict[str, NetworkPlan]:
        """The network of each strategy's first candidate, which stands for all in pictures."""
        return {name: next(iter(networks.values())) for name, networks in self.candidates.items()}

    def backbone(self, strategy: Strategy, seed: int) -> Backbone:
        """Return a strategy's backbone, not to be changed; random weights are drawn for the seed."""
        name, weights, size = strategy.backbone.name, strategy.backbone.weights, strategy.image_size
        if weights == "none":
            return load_backbone(name, weights, size, seed)
        return self.backbones[name, weights, size]


def make_plan(study: StudyConfig, classes: int, weights: bool = False) -> Plan:
    """Plan a study; no image is read.

    Args:
        study: what would run.
        classes: how many the data has.
        weights: load the initial weights of each backbone.

    Raises:
        UserError: names every strategy whose backbone, size or cut does not exist, or whose weights
            cannot be loaded or do not fit.
    """
    plans: dict[str, dict[str, NetworkPlan]] = {}
    problems: dict[str, UserError] = {}

    @functools.cache
    def loaded(name: str, source: str, size: int) -> tuple[Backbone, tuple[StageInfo, ...]]:
        backbone = load_backbone(name, source, size, seed=0)
        return backbone, tuple(describe(backbone))

    for name in study.strategies:
        try:
            plans[name] = {
                candidate: _network(strategy, *loaded(*_key(strategy, weights)), classes)
                for candidate, strategy in candidates(study, name, registered()).items()
            }
        except UserError as error:
            problems[name] = error
    if problems:
        raise all_problems("strategies", problems)
    keys = dict.fromkeys(_key(network.strategy, weights) for each in plans.values() for network in each.values())
    return Plan(tuple(cells(study)), plans, {key: loaded(*key)[0] for key in keys} if weights else {})


def _key(strategy: Strategy, weights: bool) -> BackboneKey:
    """Return what a strategy's backbone is loaded by; without ``weights``, it gets random ones."""
    return strategy.backbone.name, strategy.backbone.weights if weights else "none", strategy.image_size


def _network(strategy: Strategy, backbone: Backbone, stages: tuple[StageInfo, ...], classes: int) -> NetworkPlan:
    """Plan the network of one candidate."""
    cuts = tuple(cuts_of(strategy, backbone))
    head = describe_head(build_head(strategy.head, backbone, classes, seed=0), backbone)
    return NetworkPlan(strategy, stages, head, cuts)


def weight_hashes(plan: Plan) -> dict[tuple[str, str], str]:
    """Return the sha256 of each backbone's weights, by what names these."""
    return {(name, weights): backbone.weights.sha256 for (name, weights, _), backbone in plan.backbones.items()}


def all_problems(kind: str, problems: dict[str, UserError]) -> UserError:
    """Return one error for several problems, each once, with the names that it concerns."""
    names: dict[str, list[str]] = {}
    errors = {}
    for name, error in problems.items():
        names.setdefault(str(error), []).append(name)
        errors[str(error)] = error
    if len(errors) == 1:
        text, error = next(iter(errors.items()))
        return UserError(f"{kind}.{', '.join(names[text])}: {error.given}", error.expected, error.fix)
    lines = [
        f"\n  - {kind}.{', '.join(names[text])}: {error.given}; expected {error.expected}; {error.fix}"
        for text, error in errors.items()
    ]
    return UserError(
        f"{len(errors)} problems:" + "".join(lines),
        "a study whose every cell can run",
        "change what is named above; nothing has run yet",
    )


def as_record(plan: Plan, fingerprints: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Return the plan in the form of plan.json, where fingerprints by cell id tell which files belong to a cell."""
    return {
        "cells": [
            {"cell": cell.id, **cell_record(cell), **({"fingerprint": fingerprints[cell.id]} if fingerprints else {})}
            for cell in plan.cells
        ],
        "networks": {
            name: _network_record(network, len(plan.candidates[name])) for name, network in plan.networks.items()
        },
    }


def _network_record(network: NetworkPlan, count: int) -> dict[str, Any]:
    strategy = network.strategy
    return {
        "backbone": strategy.backbone.name,
        "weights": strategy.backbone.weights,
        "image_size": strategy.image_size,
        "candidates": count,
        "phases": [
            {
                "train": train_words(phase.train),
                "epochs": phase.epochs,
                "optimizer": optimizer_words(phase.optimizer),
                "schedule": phase.schedule.name,
            }
            for phase in strategy.phases
        ],
        "stages": [
            {
                "name": stage.name,
                "output_shape": list(stage.output_shape),
                "params": stage.params,
                "flops": stage.flops,
                "states": _states(network, number),
            }
            for number, stage in enumerate(network.stages)
        ],
        "head": {"layers": network.head.layers, "params": network.head.params},
    }


def _states(network: NetworkPlan, stage: int) -> list[str]:
    """Return what a stage is in each phase: frozen, trained, or new (trained from fresh weights)."""
    first_fresh = fresh_from(network.strategy, network.cuts, len(network.stages))
    return [
        "frozen" if stage < cut else "new" if stage >= fresh else "trained"
        for cut, fresh in zip(network.cuts, first_fresh, strict=True)
    ]


def train_words(train: Train) -> str:
    """Describe in words what trains."""
    if not isinstance(train, LastStages):
        return {"all": "all stages and the head", "head": "the head alone"}[train]
    if isinstance(train.last, float):
        return f"the last {train.last:.0%} of the stages and the head"
    return "the last stage and the head" if train.last == 1 else f"the last {train.last} stages and the head"


def optimizer_words(optimizer: Optimizer) -> str:
    """Describe an optimiser in words, with the settings that it uses."""
    kind = OPTIMIZERS[optimizer.name]
    words = [f"{kind.label}, learning rate {optimizer.lr:g}"]
    words += [f"momentum {optimizer.momentum:g}"] if kind.has_momentum and optimizer.momentum else []
    words += [f"weight decay {optimizer.weight_decay:g}"] if optimizer.weight_decay else []
    words += [f"layer decay {optimizer.layer_decay:g}"] if optimizer.layer_decay != 1 else []
    return ", ".join(words)


def strategies_of(plan: Plan) -> dict[PrefixKey, Strategy]:
    """Return, by prefix, one strategy that uses it."""
    return {
        prefix_of(network.strategy): network.strategy
        for networks in reversed(list(plan.candidates.values()))
        for network in reversed(list(networks.values()))
    }


def preprocessings(plan: Plan) -> dict[PrefixKey, Preprocessing]:
    """Return the preprocessing of every strategy, by prefix."""
    found = {}
    for key, strategy in strategies_of(plan).items():
        weights = plan.backbone(strategy, 0).weights
        found[key] = Preprocessing(
            image_size=strategy.image_size,
            resize=strategy.resize,
            mean=weights.mean,
            std=weights.std,
            interpolation=weights.interpolation,
            crop_share=weights.crop_share,
        )
    return found


def bases_of(calibrated: Mapping[PrefixKey, Preprocessing]) -> list[BaseTransform]:
    """Return the distinct kinds of base pictures."""
    return list({str(made.base.identity()): made.base for made in calibrated.values()}.values())
