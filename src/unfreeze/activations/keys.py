"""Keys of activations: prefix, cut and view."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from unfreeze.config.resolve import Strategy
from unfreeze.config.schema import RegimeConfig, Resize


@dataclass(frozen=True, order=True)
class PrefixKey:
    """Identity of a frozen prefix: a pretrained backbone at one input size."""

    backbone: str
    weights: str
    image_size: int
    resize: Resize

    @property
    def label(self) -> str:
        """Name for messages, with the name of a weights file and a resizing other than crop."""
        return self.named(Path(self.weights).stem)

    def named(self, file: str) -> str:
        """Return the name for messages, with ``file`` as the name of a weights file."""
        file = "" if self.weights in ("pretrained", "none") else f" ({file})"
        resize = "" if self.resize == "crop" else f" ({self.resize})"
        return f"{self.backbone}{file}, {self.image_size} pixels{resize}"


def label_of(key: PrefixKey, keys: Iterable[PrefixKey]) -> str:
    """Return the name of a prefix for messages, with the path of its weights file if another key has the same name."""
    collides = any(other.label == key.label for other in keys if other != key)
    return key.named(key.weights) if collides else key.label


@dataclass(frozen=True, order=True)
class ActivationKey:
    """Identity of activations that cells can share.

    Attributes:
        prefix: the frozen network.
        cut: number of its stages.
        augment: augmentation of the views; "none" for the plain view.
        seed: seed of augmented views; -1 for the plain view.
    """

    prefix: PrefixKey
    cut: int
    augment: str
    seed: int


def prefix_of(strategy: Strategy) -> PrefixKey:
    """Return the key of a strategy's frozen prefix."""
    return PrefixKey(strategy.backbone.name, strategy.backbone.weights, strategy.image_size, strategy.resize)


def bank(regime: RegimeConfig) -> int | None:
    """Return the number of views per image; None for new views in every epoch."""
    if regime.augment == "none":
        return 1
    return None if regime.views == "fresh" else int(regime.views)


def training_key(strategy: Strategy, cut: int, regime: RegimeConfig, seed: int) -> ActivationKey:
    """Return the key of a regime's training activations."""
    plain = regime.augment == "none"
    return ActivationKey(prefix_of(strategy), cut, regime.augment, -1 if plain else seed)


def validation_key(strategy: Strategy, cut: int, regime: RegimeConfig, seed: int) -> ActivationKey:
    """Return the key of a regime's validation activations."""
    seen = regime.validation
    plain = seen.augment == "none"
    return ActivationKey(prefix_of(strategy), cut, seen.augment, -1 if plain else seed)


def plain_key(strategy: Strategy, cut: int) -> ActivationKey:
    """Return the key of activations of plain views."""
    return ActivationKey(prefix_of(strategy), cut, "none", -1)
