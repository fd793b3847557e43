"""Names that a study may use, collected from registries that this package does not import."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler, ValidationInfo
from pydantic_core import CoreSchema, PydanticKnownError, core_schema


@dataclass(frozen=True)
class OptimizerDefaults:
    """Default settings of an optimiser.

    Attributes:
        head_lr: peak learning rate of a phase that trains the head alone.
        stages_lr: peak learning rate of a phase that trains pretrained stages.
        fresh_lr: peak learning rate of a phase that trains stages with new weights.
        weight_decay: weight decay of parameters with two or more dimensions.
    """

    head_lr: float
    stages_lr: float
    fresh_lr: float
    weight_decay: float


@dataclass(frozen=True)
class Choices:
    """Names that a study may use, in the order in which messages list them.

    Attributes:
        metrics, schedules, augmentations, heads, poolings: names of each kind.
        optimizers: defaults by name.
        sources: names of data that are not paths; one that ends with ``:`` is a prefix.
    """

    metrics: Collection[str]
    optimizers: Mapping[str, OptimizerDefaults]
    schedules: Collection[str]
    augmentations: Collection[str]
    heads: Collection[str]
    poolings: Collection[str]
    sources: Collection[str]


def is_named(data: str, words: Collection[str]) -> bool:
    """Return whether data is given by the name of a source rather than by a path."""
    return any(data.startswith(word) if word.endswith(":") else data == word for word in words)


@dataclass(frozen=True)
class ChosenFrom:
    """Annotation of a setting that takes a name of one kind.

    Validation with a ``Choices`` as context rejects other names; without one it accepts any text.

    Attributes:
        kind: an attribute of ``Choices``.
    """

    kind: str

    def names(self, choices: Choices) -> list[str]:
        """Return the allowed names."""
        return list(getattr(choices, self.kind))

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Check the name before its type, so that the error for a number lists the names too."""
        return core_schema.with_info_before_validator_function(self._known, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        """Describe the kind of name in the JSON schema."""
        return {"type": "string", "choices": self.kind}

    def _known(self, value: Any, info: ValidationInfo) -> Any:
        if info.context is None or value in (names := self.names(info.context)):
            return value
        *others, last = map(repr, names)
        raise PydanticKnownError("literal_error", {"expected": f"{', '.join(others)} or {last}" if others else last})
