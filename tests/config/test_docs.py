"""docs/study-file.md lists every key with its default, and its examples are valid."""

import re
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from tests.support.choices import CHOICES, candidates, parse_study
from unfreeze.config import schema as shapes
from unfreeze.config.load import load_yaml

TEXT = (Path(__file__).parents[2] / "docs" / "study-file.md").read_text(encoding="utf-8")
SECTIONS: dict[str, type[BaseModel]] = {
    "The study": shapes.StudyConfig,
    "split": shapes.SplitConfig,
    "check": shapes.CheckConfig,
    "columns": shapes.ColumnsConfig,
    "backbone": shapes.BackboneConfig,
    "A strategy": shapes.StrategyConfig,
    "A phase": shapes.PhaseConfig,
    "train": shapes.LastStages,
    "optimizer": shapes.OptimizerConfig,
    "schedule": shapes.ScheduleConfig,
    "head": shapes.HeadConfig,
    "early_stopping": shapes.EarlyStopping,
    "A regime": shapes.RegimeConfig,
    "validation": shapes.ValidationConfig,
    "sweep": shapes.SweepConfig,
    "budget": shapes.Budget,
}


def section(title: str) -> str:
    found = re.search(rf"^## {re.escape(title)}\n(.*?)(?=^## |\Z)", TEXT, re.MULTILINE | re.DOTALL)
    assert found, f"no section {title}"
    return found[1]


def rows(title: str) -> dict[str, list[str]]:
    """Return the other cells of each row by its key."""
    lines = [line.strip("| ").split(" | ") for line in section(title).splitlines() if line.startswith("| `")]
    assert all(len(line) == 4 for line in lines), lines
    return {key.strip("`"): rest for key, *rest in lines}


def fields(title: str) -> dict[str, Any]:
    """Return a section's fields; a strategy's are those that it does not share with a phase."""
    found = dict(SECTIONS[title].model_fields)
    if title == "A strategy":
        found = {name: field for name, field in found.items() if name not in shapes.PhaseConfig.model_fields}
    return found


def test_every_part_has_a_section() -> None:
    models = {*shapes.Settings.__subclasses__(), *shapes.PhaseConfig.__subclasses__()}
    assert models == set(SECTIONS.values())
    assert re.findall(r"^## (.*)$", TEXT, re.MULTILINE) == [
        "The study", "split", "check", "columns", "backbone", "A strategy", "A phase", "train", "optimizer", "schedule",
        "head", "early_stopping", "A regime", "validation", "sweep", "budget",
    ]  # fmt: skip


@pytest.mark.parametrize("title", SECTIONS)
def test_every_key_is_there_with_its_default(title: str) -> None:
    assert list(rows(title)) == list(fields(title))
    for key, field in fields(title).items():
        *_, shown = rows(title)[key]
        default = field.get_default()
        if default is PydanticUndefined or key == "train":
            assert shown.startswith("required"), key
        elif default is None:
            assert not shown.startswith("`"), key  # in plain words
        else:
            value = load_yaml(f"value: {shown.split('`')[1]}", key)["value"]
            if isinstance(default, BaseModel):
                value = type(default).model_validate(value)
            assert (tuple(value) if isinstance(value, list) else value) == default, key


@pytest.mark.parametrize("title", SECTIONS)
def test_every_word_that_a_key_takes_is_there(title: str) -> None:
    """Words allowed by the types or registered, found in the JSON schema, stand in the row's type."""
    schema = SECTIONS[title].model_json_schema()["properties"]
    for key in fields(title):
        words = set(re.findall(r"'(?:enum|const)': (?:\[(.*?)\]|('.*?'))", str(schema[key])))
        for listed, single in words:
            for word in re.findall(r"'(.*?)'", listed or single):
                assert f"`{word}`" in rows(title)[key][1], f"{title}: {key}: {word}"
        for kind in re.findall(r"'choices': '(.*?)'", str(schema[key])):
            for word in getattr(CHOICES, kind):
                assert f"`{word}`" in rows(title)[key][1], f"{title}: {key}: {word}"


EXAMPLES = re.findall(r"^```yaml\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("number", range(len(EXAMPLES)))
def test_every_example_parses(number: int) -> None:
    study = parse_study(load_yaml(EXAMPLES[number], "the example"), "the example")
    for name in study.strategies:
        assert candidates(study, name)


def test_links_lead_to_sections() -> None:
    anchors = {title.lower().replace(" ", "-") for title in SECTIONS}
    links = set(re.findall(r"\]\(#(.*?)\)", TEXT))
    assert links and links <= anchors
