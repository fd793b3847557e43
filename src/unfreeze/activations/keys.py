"""Keys of stored activations: prefix, cut and view."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from unfreeze.config.resolve import Strategy
from unfreeze.config.schema import RegimeConfig, Resize


@dataclass(frozen=True, order=True)
class PrefixKey:
    """A pretrained backbone at one input size: what its frozen stages are shared by."""

    backbone: str
    weights: str
    image_size: int
    resize: Resize

    @property
    def label(self) -> str:
        """Its name for people: of weights in a file with the file's name, of another resizing than a crop with that."""
        return self.named(Path(self.weights).stem)

    def named(self, file: str) -> str:
        """Return its name for people, with a name for the file of its weights if they are in one."""
        file = "" if self.weights in ("pretrained", "none") else f" ({file})"
        resize = "" if self.resize == "crop" else f" ({self.resize})"
        return f"{self.backbone}{file}, {self.image_size} pixels{resize}"


def label_of(key: PrefixKey, keys: Iterable[PrefixKey]) -> str:
    """Return a prefix's name for people among those of a study: the file's whole path where its name is another's."""
    collides = any(one.label == key.label for one in keys if one != key)
    return key.named(key.weights) if collides else key.label


@dataclass(frozen=True, order=True)
class ActivationKey:
    """Activations that cells may share.

    Attributes:
        prefix: the frozen network.
        cut: number of its stages.
        augment: how its views are made; "none" for the plain view.
        seed: of augmented views, -1 for the plain one, which has none.
    """

    prefix: PrefixKey
    cut: int
    augment: str
    seed: int


def prefix_of(strategy: Strategy) -> PrefixKey:
    """Return what a strategy's frozen stages are shared by."""
    return PrefixKey(strategy.backbone.name, strategy.backbone.weights, strategy.image_size, strategy.resize)


def bank(regime: RegimeConfig) -> int | None:
    """Return how many views of an image there are; None: new ones for ever."""
    if regime.augment == "none":
        return 1
    return None if regime.views == "fresh" else int(regime.views)


def training_piece(strategy: Strategy, cut: int, regime: RegimeConfig, seed: int) -> ActivationKey:
    """Return the activations that training images are drawn from."""
    plain = regime.augment == "none"
    return ActivationKey(prefix_of(strategy), cut, regime.augment, -1 if plain else seed)


def validation_piece(strategy: Strategy, cut: int, regime: RegimeConfig, seed: int) -> ActivationKey:
    """Return the activations that validation images are looked at in, each epoch."""
    seen = regime.validation
    plain = seen.augment == "none"
    return ActivationKey(prefix_of(strategy), cut, seen.augment, -1 if plain else seed)


def plain_piece(strategy: Strategy, cut: int) -> ActivationKey:
    """Return the activations of plain views."""
    return ActivationKey(prefix_of(strategy), cut, "none", -1)
