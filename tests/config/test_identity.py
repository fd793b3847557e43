"""Fingerprints never change, since they are stored in study directories and in folder names of the cache."""

import ast
import dataclasses
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from tests.support.choices import candidates, parse_study, read_study
from tests.support.kept import KEPT
from unfreeze.config import identity, resolve
from unfreeze.config import schema as shapes
from unfreeze.config.identity import cell_fingerprint, fingerprint, study_fingerprint
from unfreeze.config.load import load_yaml, preset_text
from unfreeze.config.resolve import cells
from unfreeze.config.schema import StudyConfig
from unfreeze.storage.array_store import entry
from unfreeze.storage.records import read_json

IDENTITIES = Path(__file__).parents[1] / "support" / "identities.jsonl"
CASES = [json.loads(line) for line in IDENTITIES.read_bytes().splitlines()]
"""120 drawn studies with their hashes, computed at 0.1.0, of which each key of the study file is part; never redone."""

PRESETS = {
    "quick": ("7d3557ab906e04dd", {
        "head.small.s0": "2a734a382f614443", "head.full.s0": "59f1b25301ddce33",
        "last_quarter.small.s0": "a1c0cbeb4f072682", "last_quarter.full.s0": "df53278a9443f5ff",
        "fine_tune.small.s0": "ce643591f73ee59d", "fine_tune.full.s0": "83032ba6b9554f30",
        "head.small.s1": "d2085001e8a91054", "head.full.s1": "683e7890b9fcf02e",
    }),
    "thorough": ("071ff77ef82a0869", {
        "head.images_10.s0": "62f31c7f1d65c13b", "head.images_25.s0": "73b4b930e36c81f7",
        "head.images_100.s0": "f338a5e46b4f0bb4", "head.images_100_augmented.s0": "d1dd0ba4f8d0819c",
        "head.full.s0": "3d2c02107be4e589", "head.full_augmented.s0": "7741cc82cc31e590",
        "last_quarter.images_10.s0": "80da46b0e1099013", "last_quarter.images_25.s0": "147e2ad65caae6f2",
    }),
    "article": ("36b7a140e03a681d", {
        "scratch.pattern_1.s0": "b61311585db86687", "scratch.pattern_2.s0": "f93bb53f85baaf67",
        "scratch.pattern_3.s0": "5603b0c30cfe7df8", "head.pattern_1.s0": "bf94b124eb723a6d",
        "head.pattern_2.s0": "176c17ec60c61046", "head.pattern_3.s0": "25fd1afa59ec1a84",
        "last_block.pattern_1.s0": "31d5fd252d7a87bb", "last_block.pattern_2.s0": "71d5746f710a0eb7",
    }),
    "demo": ("3a91b3e97cd92929", {
        "scratch.images_10.s0": "2cc3951545d4f3a0", "scratch.images_40.s0": "bf2c82693718e3ec",
        "head.images_10.s0": "a53bd330e11eb15e", "head.images_40.s0": "ff2f84f5f6a0af62",
        "fine_tune.images_10.s0": "a9721e479d46d670", "fine_tune.images_40.s0": "bf3045da10617e11",
        "scratch.images_10.s1": "2e45c856d2e627cd", "scratch.images_40.s1": "8df23dc5f9ea3b98",
    }),
}  # fmt: skip
"""Of each preset on a folder ``photos``: the study's hash, and those of its first cells, at 0.1.0."""

KEPT_CELLS = {
    "head.bank.s0": "397813650fcd9286", "head.bank.s1": "675fd8dec9153a3b", "head.full.s0": "2bcd8493292ab5c2",
    "head.full.s1": "930478d8d84226a9", "head.small.s0": "06e1355a526eeebb", "head.small.s1": "817beebf5a007ee6",
    "last.bank.s0": "0b8bd57921dacfcc", "last.bank.s1": "6ca2df3bd3471c90", "last.full.s0": "d68aeb913023c49f",
    "last.full.s1": "8358fa5bcf19f097", "last.small.s0": "37cc0ba6bed1f183", "last.small.s1": "c774eadabd3bd5b1",
    "phases.bank.s0": "d546e9e8941ec762", "phases.full.s0": "ecea24c0d1b3946d", "phases.small.s0": "52e85e42c5fd9844",
    "tuned.bank.s0": "b10fd14641fd63a8", "tuned.bank.s1": "fc8dfc8191a48dae", "tuned.full.s0": "bbc1da33ccbee49e",
    "tuned.full.s1": "4b29d7f5d8b5282b", "tuned.small.s0": "2e0675fb7ee78333", "tuned.small.s1": "7593bc6d4b60d494",
}  # fmt: skip
"""Of the cells of ``tests/support/kept_study``."""


class Weights(dict[tuple[str, str], str]):
    """The sha256 of made-up weights."""

    def __missing__(self, key: tuple[str, str]) -> str:
        return hashlib.sha256(" ".join(key).encode()).hexdigest()


def hashes(study: StudyConfig) -> tuple[str, dict[str, str]]:
    found = {
        cell.id: cell_fingerprint(study, cell, candidates(study, cell.strategy), Weights(), "cpu", "0123456789abcdef")
        for cell in cells(study)[:8]
    }
    return study_fingerprint(study), found


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["study"])
def test_a_study_and_its_cells_have_the_hashes_that_they_always_had(case: dict[str, Any]) -> None:
    assert hashes(parse_study(case["values"], "study.yaml")) == (case["study"], case["cells"])


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_has_the_hashes_that_it_always_had(preset: str) -> None:
    assert hashes(parse_study(load_yaml(preset_text(preset), preset) | {"data": "photos"}, preset)) == PRESETS[preset]


def test_the_kept_cells_have_the_hashes_that_they_always_had() -> None:
    study = read_study(KEPT / "study.yaml")
    found = {}
    for cell in cells(study):
        record = read_json(KEPT / "out" / "cells" / cell.id / "cell.json")
        asked = candidates(study, cell.strategy)
        names = {(one.backbone.name, one.backbone.weights): record["weights"]["sha256"] for one in asked.values()}
        data, device = record["data_fingerprint"], record["compute"]["device"]
        found[cell.id] = cell_fingerprint(study, cell, asked, names, device, data)
        assert record["fingerprint"] == found[cell.id]
        assert identity.compute_record(study, device) == record["compute"]
        assert identity.regime_record(study.regimes[cell.regime]) == record["regime_settings"]
        for name, one in asked.items():  # but for the folder that the weights were in
            expected = record["candidates"][name] | {"backbone": identity.backbone_record(one.backbone)}
            assert identity.strategy_record(one) == expected
    assert found == KEPT_CELLS


class Watched:
    """Settings that note which of their attributes are read."""

    def __init__(self, settings: Any) -> None:
        self.settings, self.read = settings, set[str]()

    def __getattr__(self, name: str) -> Any:
        self.read.add(name)
        return getattr(self.settings, name)


STUDY = parse_study(
    {
        "data": "photos",
        "backbone": "resnet18",
        "strategies": {"s": {"train": {"last": 1}, "head": {"hidden": [8]}, "early_stopping": {}}},
        "regimes": {"r": {}},
    },
    "study.yaml",
)
ASKED, RESOLVED = STUDY.strategies["s"], candidates(STUDY, "s")[""]
RECORDS: list[tuple[Callable[[Any], Any], Any]] = [
    (identity.study_record, STUDY),
    (identity.split_record, STUDY.split),
    (identity.check_record, STUDY.check),
    (identity.columns_record, STUDY.columns),
    (identity.budget_record, STUDY.budget),
    (identity.asked_strategy_record, ASKED),
    (identity.asked_phase_record, shapes.PhaseConfig()),
    (identity.optimizer_record, ASKED.optimizer),
    (identity.schedule_record, ASKED.schedule),
    (identity.train_record, ASKED.train),
    (identity.head_record, ASKED.head),
    (identity.stopping_record, ASKED.early_stopping),
    (identity.backbone_record, STUDY.backbone),
    (identity.regime_record, STUDY.regimes["r"]),
    (identity.validation_record, STUDY.regimes["r"].validation),
    (identity.cell_record, cells(STUDY)[0]),
    (identity.strategy_record, RESOLVED),
    (identity.phase_record, RESOLVED.phases[0]),
    (identity.optimizer_record, RESOLVED.phases[0].optimizer),
]


def attributes(kind: type) -> set[str]:
    if issubclass(kind, BaseModel):
        return set(kind.model_fields)
    return {field.name for field in dataclasses.fields(kind)}


@pytest.mark.parametrize(("record", "settings"), RECORDS, ids=lambda one: getattr(one, "__name__", type(one).__name__))
def test_each_setting_is_hashed_or_listed_as_not_hashed(record: Callable[[Any], Any], settings: Any) -> None:
    """A new setting belongs into its record in ``config/identity.py``, by ``_unless``, or into ``NOT_HASHED``."""
    watched = Watched(settings)
    record(watched)
    assert watched.read | identity.NOT_HASHED.get(type(settings), set()) == attributes(type(settings))


def test_each_kind_of_settings_has_its_record() -> None:
    models = {*shapes.Settings.__subclasses__(), *shapes.PhaseConfig.__subclasses__()} - {shapes.SweepConfig}
    made = {kind for kind in vars(resolve).values() if isinstance(kind, type) and kind.__module__ == resolve.__name__}
    assert {type(settings) for _, settings in RECORDS} == models | made


def test_no_key_is_the_name_of_an_attribute_at_run_time() -> None:
    """Keys are literals and values are read by attribute, so that a rename inside changes no hash."""
    tree = ast.parse(Path(identity.__file__).read_text(encoding="utf-8"))
    names = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    names |= {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    assert not names & {
        "asdict", "astuple", "fields", "model_dump", "model_dump_json", "model_fields", "getattr", "vars", "__dict__",
        "dict_", "repr",
    }  # fmt: skip


def test_a_later_setting_enters_a_hash_only_where_it_is_not_at_its_default() -> None:
    assert not {"columns", "labels_from"} & identity.study_record(STUDY).keys()
    said = STUDY.model_copy(update={"columns": shapes.ColumnsConfig(path="file"), "labels_from": "name"})
    record = identity.study_record(said)
    assert (record["columns"]["path"], record["labels_from"]) == ("file", "name")


@pytest.mark.parametrize("folder", sorted((KEPT / "cache").glob("[ap]*/*-*")), ids=lambda path: path.name)
def test_a_kept_entry_of_the_cache_is_named_by_its_identity(folder: Path) -> None:
    record = read_json(folder / "entry.json")
    found = entry(KEPT / "cache", folder.parent.name, folder.name[:-17], record["identity"], record["dtype"])  # type: ignore[arg-type]
    assert found.folder == folder


@pytest.mark.parametrize("path", sorted((KEPT / "cache" / "calibrations").iterdir()), ids=lambda path: path.name)
def test_a_kept_measurement_is_named_by_its_key(path: Path) -> None:
    assert fingerprint(read_json(path)["key"]) == path.stem
