"""Store timings of this machine in the cache."""

import platform
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unfreeze.config.identity import fingerprint
from unfreeze.errors import UserError
from unfreeze.storage.records import read_json, write_json

RULES = 4
"""Version of the measurements; increase it whenever they are measured or stored differently."""


def processor() -> str:
    """Return the processor's name."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


@dataclass(frozen=True)
class Measurements:
    """Small records in the folder ``calibrations`` of a cache, by what they depend on.

    Attributes:
        cache: the folder of the cache.
        machine: what all timings depend on; JSON data.
    """

    cache: Path
    machine: Mapping[str, Any]

    def recall(self, key: Mapping[str, Any]) -> dict[str, Any] | None:
        """Return the record of a key, None if it does not exist or cannot be read."""
        try:
            record = read_json(self._path(key))
            return dict(record["found"]) if record["key"] == self._whole(key) else None
        except (OSError, UserError, KeyError):
            return None

    def remember(self, key: Mapping[str, Any], found: Mapping[str, Any]) -> None:
        """Write a record; if the cache cannot be written, the same is measured again next time."""
        try:
            write_json(self._path(key), {"key": self._whole(key), "found": dict(found)})
        except UserError:
            pass

    def once(self, key: Mapping[str, Any], measure: Callable[[], Mapping[str, Any]]) -> dict[str, Any]:
        """Return the record of a key; measure and store it if it does not exist."""
        found = self.recall(key)
        if found is None:
            found = dict(measure())
            self.remember(key, found)
        return found

    def _whole(self, key: Mapping[str, Any]) -> dict[str, Any]:
        return {**key, "machine": dict(self.machine), "rules": RULES}

    def _path(self, key: Mapping[str, Any]) -> Path:
        return self.cache / "calibrations" / f"{fingerprint(self._whole(key))}.json"
