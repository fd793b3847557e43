"""What a study may choose by name. The names come from registries that this part of the package does not import."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler, ValidationInfo
from pydantic_core import CoreSchema, PydanticKnownError, core_schema


@dataclass(frozen=True)
class OptimizerDefaults:
    """An optimiser's settings where a study says nothing.

    Attributes:
        head_lr: peak learning rate of a phase that trains the head alone.
        stages_lr: of one that trains pretrained stages.
        fresh_lr: of one that trains stages with fresh weights.
        weight_decay: of parameters with two or more dimensions.
    """

    head_lr: float
    stages_lr: float
    fresh_lr: float
    weight_decay: float


@dataclass(frozen=True)
class Choices:
    """Names that a study may choose from, in the order in which messages list them.

    Attributes:
        metrics, schedules, augmentations, heads, poolings: names of each kind.
        optimizers: their defaults by name.
        sources: words that name data other than by a path; one that ends with ``:`` is the beginning of such a name.
    """

    metrics: Collection[str]
    optimizers: Mapping[str, OptimizerDefaults]
    schedules: Collection[str]
    augmentations: Collection[str]
    heads: Collection[str]
    poolings: Collection[str]
    sources: Collection[str]


def is_named(data: str, words: Collection[str]) -> bool:
    """Tell whether data is named by one of a source's words, not by a path."""
    return any(data.startswith(word) if word.endswith(":") else data == word for word in words)


@dataclass(frozen=True)
class ChosenFrom:
    """Marks a setting as a name of one kind.

    Where settings are validated with a ``Choices`` as context, other names are refused; without one any text will do.

    Attributes:
        kind: an attribute of ``Choices``.
    """

    kind: str

    def names(self, choices: Choices) -> list[str]:
        """Return the names to choose from."""
        return list(getattr(choices, self.kind))

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Check the name before its type, so that a number is answered with the names as well."""
        return core_schema.with_info_before_validator_function(self._known, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        """Say what kind of name it is."""
        return {"type": "string", "choices": self.kind}

    def _known(self, value: Any, info: ValidationInfo) -> Any:
        if info.context is None or value in (names := self.names(info.context)):
            return value
        *others, last = map(repr, names)
        raise PydanticKnownError("literal_error", {"expected": f"{', '.join(others)} or {last}" if others else last})
