"""Cuts of a strategy: how many stages each phase freezes, and which have fresh weights."""

from collections.abc import Sequence

from unfreeze.config.resolve import Strategy
from unfreeze.model.backbone import Backbone
from unfreeze.model.network import frozen_stages


def cuts_of(strategy: Strategy, backbone: Backbone) -> list[int]:
    """Return the number of frozen stages in each phase.

    Raises:
        UserError: a phase trains more stages than the backbone has.
    """
    names = [stage.name for stage in backbone.stages]
    return [frozen_stages(phase.train, len(names), names) for phase in strategy.phases]


def feed_cuts(cuts: Sequence[int]) -> list[int]:
    """Return for each phase the number of leading stages that no phase so far has trained.

    The inputs of a phase may be activations after that many stages.
    """
    return [min(cuts[: number + 1]) for number in range(len(cuts))]


def fresh_from(strategy: Strategy, cuts: Sequence[int], stages: int) -> list[int]:
    """Return, by phase, the number of the first stage with fresh weights; ``stages`` where all are pretrained."""
    reset = [cut if phase.reinit else stages for phase, cut in zip(strategy.phases, cuts, strict=True)]
    first = 0 if strategy.backbone.weights == "none" else stages
    return [min(first, *reset[: number + 1]) for number in range(len(cuts))]
