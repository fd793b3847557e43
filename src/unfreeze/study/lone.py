"""Strategies whose training cannot begin with the images there are: BatchNorm would see a batch of one."""

from collections.abc import Mapping

from torch.nn.modules.batchnorm import _BatchNorm

from unfreeze.config.resolve import Strategy
from unfreeze.config.study import StudyConfig
from unfreeze.errors import UserError
from unfreeze.model.backbone import Backbone
from unfreeze.model.cuts import cuts_of
from unfreeze.study.cell import Job
from unfreeze.study.forecast import backbone_of
from unfreeze.study.plan import BackboneKey, all_problems
from unfreeze.train.lone_batch import has_lone_batch, lone_batch


class Untrainable(UserError):
    """A study with a strategy that none of its cells can train with, so that there is nothing to plan either."""


def refuse_lone_batches(jobs: Mapping[str, Job], backbones: Mapping[BackboneKey, Backbone]) -> None:
    """Refuse a study with a strategy none of whose cells can train, since each has a batch of one image.

    Where some of a strategy's cells can, the study runs, and the others fail when their turn comes.

    Args:
        jobs: the cells, by id.
        backbones: the pretrained ones.

    Raises:
        Untrainable: names every such strategy.
    """
    lone: dict[str, list[tuple[int, int]]] = {}
    able = set[str]()
    for job in jobs.values():
        name, images = job.cell.strategy, len(job.train)
        sizes = [one.batch_size for one in job.candidates.values() if _is_lone(one, backbones, images)]
        if sizes:
            lone.setdefault(name, []).append((sizes[0], images))
        else:
            able.add(name)
    problems: dict[str, UserError] = {}
    for name, found in lone.items():
        if name not in able:
            study = next(job.study for job in jobs.values() if job.cell.strategy == name)
            size, _ = found[0]
            tuned = study.strategies[name].tune.get("batch_size", ())
            problems[name] = lone_batch(size, {images for _, images in found}, _key(study, name, size), tuned)
    if problems:
        error = all_problems("strategies", problems)
        raise Untrainable(error.given, error.expected, error.mend)


def _key(study: StudyConfig, name: str, batch_size: int) -> str:
    """Return the path of the setting that gives a strategy its batch size."""
    asked = study.strategies[name]
    if "batch_size" in asked.tune:
        return f"strategies.{name}.tune.batch_size.{asked.tune['batch_size'].index(batch_size)}"
    return "batch_size" if asked.batch_size is None else f"strategies.{name}.batch_size"


def _is_lone(strategy: Strategy, backbones: Mapping[BackboneKey, Backbone], images: int) -> bool:
    """Tell whether a phase has a BatchNorm that takes its statistics from batches, of which one is one image."""
    if not has_lone_batch(images, strategy.batch_size):
        return False
    backbone = backbone_of(strategy, backbones, 0)
    fresh = 0 if strategy.backbone.weights == "none" else len(backbone.stages)
    for phase, cut in zip(strategy.phases, cuts_of(strategy, backbone), strict=True):
        fresh = min(fresh, cut) if phase.reinit else fresh
        learning = backbone.stages[cut if phase.batch_norm == "train" else max(cut, fresh) :]
        if any(isinstance(module, _BatchNorm) for stage in learning for module in stage.module.modules()):
            return True
    return False
