"""requirements-dev.lock holds every dependency with its hashes, within what pyproject.toml asks for."""

import re
import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
ASKED = [
    Requirement(text)
    for texts in (
        PROJECT["project"]["dependencies"],
        *PROJECT["project"]["optional-dependencies"].values(),
        PROJECT["dependency-groups"]["dev"],
        PROJECT["build-system"]["requires"],
    )
    for text in texts
]
OF_THE_MACHINE = {"torch", "torchvision"}
"""Not locked: which build it is depends on the machine."""
FLOORS = {"torch": "2.10", "pillow": "12.3", "safetensors": "0.8"}
"""Older ones have known holes."""


def locked() -> dict[str, list[tuple[Version, int]]]:
    """Return, by package, its versions (several where they depend on Python's) with the number of their hashes."""
    found: dict[str, list[tuple[Version, int]]] = {}
    text = (ROOT / "requirements-dev.lock").read_text(encoding="utf-8")
    for entry in re.split(r"\n(?=\S)", text.strip()):
        requirement, *hashes = re.split(r"\s*\\\n\s*", entry)
        assert all(re.fullmatch("--hash=sha256:[0-9a-f]{64}", each) for each in hashes), entry
        name, version = requirement.split(" ;")[0].split("==")
        found.setdefault(name.strip(), []).append((Version(version.strip()), len(hashes)))
    return found


def test_every_dependency_is_locked_with_its_hashes() -> None:
    found = locked()
    assert all(count >= 1 for versions in found.values() for _, count in versions)
    for asked in ASKED:
        name = re.sub("[._]", "-", asked.name)
        if name in OF_THE_MACHINE:
            assert name not in found
        elif asked.specifier:
            assert all(asked.specifier.contains(version) for version, _ in found[name]), name
        else:
            assert name in found


def test_floors_keep_out_versions_with_known_holes() -> None:
    asked = {each.name: each.specifier for each in ASKED}
    for name, floor in FLOORS.items():
        (lowest,) = (Version(each.version) for each in asked[name] if each.operator == ">=")
        assert lowest >= Version(floor)


def test_the_lock_names_no_place() -> None:
    text = (ROOT / "requirements-dev.lock").read_text(encoding="utf-8")
    assert "://" not in text
    assert "index" not in text
