"""Every command and every piece of Python in the docs runs, in an order in which a reader meets them."""

import re
import shlex
from pathlib import Path

import pytest

from tests.support import layout
from tests.support.choices import parse_study
from tests.support.worlds import write_photographs, write_weights
from unfreeze.cli.app import main
from unfreeze.config.load import load_yaml

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
SMALL = [
    "--set",
    "strategies={head: {train: head, epochs: 1}, fine_tune: {train: {last: 0.25}, epochs: 1}}",
    "--set",
    "image_size=32",
    "--seeds",
    "1",
]
"""What makes a command of the docs small enough for a test: two short strategies."""
NEEDS = {
    "studies/article.yaml": "data that is not shipped: only planned and described",
    "studies/article-trashnet.yaml": "the photographs of TrashNet",
}
STUDY = """\
data: photos
backbone: {name: test_resnet, weights: weights.safetensors}
image_size: 32
strategies:
  head: {train: head}
  fine_tune: {phases: [{train: head, epochs: 1}, {train: all, epochs: 1}]}
regimes:
  small: {train_per_class: 5, val_per_class: 2}
seeds: 2
epochs: 1
"""


def commands(page: Path) -> list[str]:
    """Return the lines of code blocks that call unfreeze, without their comments."""
    lines = re.findall(r"^(?: {4}|\$ |    \$ )?(unfreeze [^\n]*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return [line.split("  ")[0].strip() for line in lines]


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with photographs, a study and weights, as the docs suppose it."""
    folder = tmp_path_factory.mktemp("docs")
    write_photographs(folder / "photos", per_class=16)
    write_weights(folder / "weights.safetensors")
    (folder / "study.yaml").write_text(STUDY)
    (folder / "studies").symlink_to(ROOT / "studies")
    return folder


@pytest.mark.parametrize(("page", "command"), [(page.name, line) for page in PAGES for line in commands(page)])
def test_commands_run(page: str, command: str, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    monkeypatch.setenv("UNFREEZE_CACHE", str(place / "cache"))
    _, name, *arguments = shlex.split(command, comments=True)
    if name == "demo":
        pytest.skip("minutes, not seconds; its preset and its images have tests of their own")
    if name == "run" and any(argument in NEEDS for argument in arguments):
        pytest.skip(f"needs {NEEDS[next(argument for argument in arguments if argument in NEEDS)]}")
    if name == "init":
        (place / "study.yaml").unlink()
    if name == "run" and "photos" in arguments:
        arguments += SMALL
    code = main([name, *arguments])
    if name == "init":
        (place / "study.yaml").write_text(STUDY)
    assert code == 0


@pytest.mark.parametrize(("page", "text"), [(page.name, text) for page in PAGES for text in blocks(page, "yaml")])
def test_studies_in_the_docs_parse(page: str, text: str) -> None:
    data = load_yaml(text, page)
    if "strategies" in data and "regimes" in data:
        parse_study({"data": "photos", "backbone": "resnet18"} | data, page)


@pytest.mark.parametrize(("page", "text"), [(page.name, text) for page in PAGES for text in blocks(page, "python")])
def test_python_in_the_docs_runs(page: str, text: str, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    exec(compile(text, page, "exec"), {})


def test_links_between_pages_lead_somewhere() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
            if "://" not in target:
                assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_the_docs_name_no_command_that_is_not_there() -> None:
    known = {"demo", "init", "check", "plan", "run", "report", "describe", "cache"}
    for page in PAGES:
        assert {line.split()[1] for line in commands(page)} <= known, page.name


def test_the_list_of_modules_is_the_package_s() -> None:
    page = layout.PAGE.read_text(encoding="utf-8")
    assert page == layout.written(page), "python -m tests.support.layout writes the list anew"
