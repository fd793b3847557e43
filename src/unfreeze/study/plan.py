"""What a study will run: its cells, and what each strategy trains and keeps frozen."""

from dataclasses import dataclass
from typing import Any

from unfreeze.config.fingerprint import plain
from unfreeze.config.resolve import Cell, Optimizer, Strategy, candidates, cells
from unfreeze.config.study import LastStages, StudyConfig, Train
from unfreeze.errors import UserError
from unfreeze.model.backbone import Backbone, load_backbone
from unfreeze.model.describe import HeadInfo, StageInfo, describe, describe_head
from unfreeze.model.head import build_head
from unfreeze.study.candidate import cuts_of


@dataclass(frozen=True)
class NetworkPlan:
    """What one strategy's network is made of, and which of its stages train.

    Attributes:
        strategy: its settings; with tuned values those of the first candidate.
        candidates: how many candidates compete in each cell.
        stages: the backbone's stages.
        head: the new classifier.
        cuts: number of frozen stages in each phase.
    """

    strategy: Strategy
    candidates: int
    stages: tuple[StageInfo, ...]
    head: HeadInfo
    cuts: tuple[int, ...]

    def flops_per_example(self) -> list[int]:
        """Return, by phase, the FLOPs of one example's step: forward through all, backward through what trains.

        The backward pass of a layer costs twice its forward pass.
        """
        forward = sum(stage.flops for stage in self.stages) + self.head.flops
        trained = [sum(stage.flops for stage in self.stages[cut:]) + self.head.flops for cut in self.cuts]
        return [forward + 2 * flops for flops in trained]

    def flops_forward(self) -> int:
        """Return the FLOPs of looking at one image."""
        return sum(stage.flops for stage in self.stages) + self.head.flops


@dataclass(frozen=True)
class Plan:
    """The cells in the order they run, and the network of each strategy."""

    cells: tuple[Cell, ...]
    networks: dict[str, NetworkPlan]


def make_plan(study: StudyConfig, classes: int) -> Plan:
    """Plan a study for a number of classes; no image and no pretrained weight is read.

    Raises:
        UserError: names every strategy whose backbone, size or cut does not exist.
    """
    networks: dict[str, NetworkPlan] = {}
    backbones: dict[tuple[str, int], Backbone] = {}
    problems: dict[str, UserError] = {}
    for name in study.strategies:
        found = list(candidates(study, name).values())
        try:
            for strategy in found:
                key = (strategy.backbone.name, strategy.image_size)
                if key not in backbones:
                    backbones[key] = load_backbone(strategy.backbone.name, "none", strategy.image_size, seed=0)
                cuts_of(strategy, backbones[key])
            networks[name] = _network(found[0], len(found), backbones, classes)
        except UserError as error:
            problems[name] = error
    if problems:
        raise all_problems("strategies", problems)
    return Plan(tuple(cells(study)), networks)


def _network(strategy: Strategy, count: int, backbones: dict[tuple[str, int], Backbone], classes: int) -> NetworkPlan:
    backbone = backbones[strategy.backbone.name, strategy.image_size]
    head = describe_head(build_head(strategy.head, backbone, classes, seed=0), backbone)
    return NetworkPlan(strategy, count, tuple(describe(backbone)), head, tuple(cuts_of(strategy, backbone)))


def all_problems(kind: str, problems: dict[str, UserError]) -> UserError:
    """Return one error that says all of them, each once, with the names it concerns."""
    names: dict[str, list[str]] = {}
    errors = {}
    for name, error in problems.items():
        names.setdefault(str(error), []).append(name)
        errors[str(error)] = error
    if len(errors) == 1:
        text, error = next(iter(errors.items()))
        return UserError(f"{kind}.{', '.join(names[text])}: {error.given}", error.expected, error.mend)
    lines = [
        f"\n  - {kind}.{', '.join(names[text])}: {error.given}; expected {error.expected}; {error.mend}"
        for text, error in errors.items()
    ]
    return UserError(
        f"{len(errors)} problems:" + "".join(lines),
        "a study whose every cell can run",
        "change what is named above; nothing has run yet",
    )


def as_record(plan: Plan) -> dict[str, Any]:
    """Return the plan as plan.json holds it."""
    return {
        "cells": [{"cell": cell.id, **plain(cell)} for cell in plan.cells],
        "networks": {name: _network_record(network) for name, network in plan.networks.items()},
    }


def _network_record(network: NetworkPlan) -> dict[str, Any]:
    strategy = network.strategy
    fresh = strategy.backbone.weights == "none"
    return {
        "backbone": strategy.backbone.name,
        "weights": strategy.backbone.weights,
        "image_size": strategy.image_size,
        "candidates": network.candidates,
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
                "states": _states(strategy, network.cuts, number, fresh),
            }
            for number, stage in enumerate(network.stages)
        ],
        "head": {"layers": network.head.layers, "params": network.head.params},
    }


def _states(strategy: Strategy, cuts: tuple[int, ...], stage: int, fresh: bool) -> list[str]:
    """Return what a stage is in each phase: frozen, trained, or new (trained from fresh weights)."""
    states, new = [], fresh
    for phase, cut in zip(strategy.phases, cuts, strict=True):
        new = new or (phase.reinit and stage >= cut)
        states.append("frozen" if stage < cut else "new" if new else "trained")
    return states


def train_words(train: Train) -> str:
    """Return what trains in words."""
    if not isinstance(train, LastStages):
        return {"all": "all stages and the head", "head": "the head alone"}[train]
    if isinstance(train.last, float):
        return f"the last {train.last:.0%} of the stages and the head"
    return "the last stage and the head" if train.last == 1 else f"the last {train.last} stages and the head"


def optimizer_words(optimizer: Optimizer) -> str:
    """Return an optimiser in words: only what it uses."""
    name = {"sgd": "SGD", "adam": "Adam", "adamw": "AdamW"}[optimizer.name]
    words = [f"{name}, learning rate {optimizer.lr:g}"]
    words += [f"momentum {optimizer.momentum:g}"] if optimizer.name == "sgd" and optimizer.momentum else []
    words += [f"weight decay {optimizer.weight_decay:g}"] if optimizer.weight_decay else []
    words += [f"layer decay {optimizer.layer_decay:g}"] if optimizer.layer_decay != 1 else []
    return ", ".join(words)
