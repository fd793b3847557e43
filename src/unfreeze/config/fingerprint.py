"""Identity of settings: equal settings have equal fingerprints, whatever the order of their keys."""

import dataclasses
import hashlib
import json
from typing import Any

from pydantic import BaseModel


def plain(value: Any) -> Any:
    """Return settings as JSON data: mappings, lists, numbers, text."""
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {str(key): plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [plain(entry) for entry in value]
    return value


def fingerprint(*values: Any) -> str:
    """Return 16 hex digits of the sha256 over settings in canonical form."""
    text = json.dumps([plain(value) for value in values], sort_keys=True, ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
