"""Loading and resolving with what the package registers."""

from functools import partial

from unfreeze.config import load, resolve
from unfreeze.study.registries import registered

CHOICES = registered()
parse_study = partial(load.parse_study, choices=CHOICES)
read_study = partial(load.read_study, choices=CHOICES)
candidates = partial(resolve.candidates, choices=CHOICES)
resolved = partial(resolve.resolve, optimizers=CHOICES.optimizers)
