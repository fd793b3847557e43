"""The names that a study may choose, collected from the registries. No torch here."""

from unfreeze.config.choices import Choices
from unfreeze.data.sources import SOURCES
from unfreeze.inputs.augment import AUGMENTATIONS
from unfreeze.metrics import METRICS
from unfreeze.train.heads import HEADS, POOLINGS
from unfreeze.train.optimizers import OPTIMIZERS, SCHEDULES


def registered() -> Choices:
    """Return what is registered now."""
    return Choices(
        metrics=[name for name, metric in METRICS.items() if metric.selects],
        optimizers={name: kind.defaults for name, kind in OPTIMIZERS.items()},
        schedules=list(SCHEDULES),
        augmentations=list(AUGMENTATIONS),
        heads=list(HEADS),
        poolings=list(POOLINGS),
        sources=[kind.word for kind in SOURCES.values() if kind.word],
    )
