"""The lock files hold every dependency with its hashes, within what pyproject.toml asks for."""

import re
import tomllib
from pathlib import Path

import pytest
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
LOCKS = {
    "requirements-dev.lock": ASKED,
    "requirements-docs.lock": [Requirement(text) for text in PROJECT["dependency-groups"]["docs"]],
}
OF_THE_MACHINE = {"torch", "torchvision"}
"""Not locked: which build it is depends on the machine."""
FLOORS = {"torch": "2.10", "pillow": "12.3", "safetensors": "0.8"}
"""Older ones have known holes."""


def locked(lock: str) -> dict[str, list[tuple[Version, int]]]:
    """Return, by package, its versions (several where they depend on Python's) with the number of their hashes."""
    found: dict[str, list[tuple[Version, int]]] = {}
    text = (ROOT / lock).read_text(encoding="utf-8")
    for entry in re.split(r"\n(?=\S)", text.strip()):
        requirement, *hashes = re.split(r"\s*\\\n\s*", entry)
        assert all(re.fullmatch("--hash=sha256:[0-9a-f]{64}", each) for each in hashes), entry
        name, version = requirement.split(" ;")[0].split("==")
        found.setdefault(name.strip(), []).append((Version(version.strip()), len(hashes)))
    return found


@pytest.mark.parametrize("lock", LOCKS)
def test_every_dependency_is_locked_with_its_hashes(lock: str) -> None:
    found = locked(lock)
    assert all(count >= 1 for versions in found.values() for _, count in versions)
    for asked in LOCKS[lock]:
        name = re.sub("[._]", "-", asked.name)
        if name in OF_THE_MACHINE:
            assert name not in found
        elif asked.specifier:
            assert all(asked.specifier.contains(version) for version, _ in found[name]), name
        else:
            assert name in found


def test_building_the_site_changes_no_version_that_the_tests_use() -> None:
    site, tests = locked("requirements-docs.lock"), locked("requirements-dev.lock")
    assert {name: site[name] for name in site.keys() & tests} == {name: tests[name] for name in site.keys() & tests}


def test_floors_keep_out_versions_with_known_holes() -> None:
    asked = {each.name: each.specifier for each in ASKED}
    for name, floor in FLOORS.items():
        (lowest,) = (Version(each.version) for each in asked[name] if each.operator == ">=")
        assert lowest >= Version(floor)


@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_names_no_place(lock: str) -> None:
    text = (ROOT / lock).read_text(encoding="utf-8")
    assert "://" not in text
    assert "index" not in text
