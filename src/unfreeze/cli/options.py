"""Options that several commands share, and the study that they describe."""

import difflib
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from unfreeze.errors import UserError

if TYPE_CHECKING:
    from unfreeze.config.schema import StudyConfig


Target = Annotated[
    str,
    typer.Argument(
        metavar="STUDY|DATA", show_default=False, help="A study file (.yaml), or images: a folder, a table."
    ),
]

Preset = Annotated[
    str | None, typer.Option(metavar="NAME", help="Settings that lie beneath the study; for a folder: quick.")
]

BackboneName = Annotated[str | None, typer.Option("--backbone", metavar="NAME", help="Another backbone: a timm name.")]
Seeds = Annotated[str | None, typer.Option(metavar="N", help="How many seeds, or which: 3, or 0,4,7.")]

Overrides = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Set a value; KEY.PATH=VALUE; may be repeated.")
]

Out = Annotated[
    Path | None, typer.Option("--out", metavar="DIR", help="The study directory.", show_default="runs/NAME")
]

Time = Annotated[
    str | None, typer.Option("--time", metavar="TIME", help="Run only what fits, most telling cells first: 30m, 1h30m.")
]

Parallel = Annotated[
    int, typer.Option(metavar="N", help="Run cells in so many processes at once; each holds a network.")
]

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout and nothing else.")]
_STUDY_FILES = (".yaml", ".yml")


# As data/tables/read.py has them, which takes long to import.
_TABLES = (
    ".csv", ".tsv", ".tab", ".psv", ".txt", ".jsonl", ".ndjson", ".parquet", ".xlsx", ".xls", ".ods", ".json",
)  # fmt: skip


def asked_study(
    target: str, preset: str | None, backbone: str | None, seeds: str | None, overrides: list[str] | None
) -> "tuple[StudyConfig, str]":
    """Return the study that a command's arguments ask for, and the text of its file ("" without one).

    Raises:
        UserError: names everything that is wrong.
    """
    from unfreeze.config.choices import is_named
    from unfreeze.config.load import read_study
    from unfreeze.study.registries import registered

    choices = registered()
    values: dict[str, Any] = {}
    if backbone is not None:
        values["backbone"] = backbone
    if seeds is not None:
        values["seeds"] = _seeds(seeds)
    path = Path(target).expanduser()
    if path.suffix.lower() in _STUDY_FILES and not path.is_dir():
        study = read_study(path, choices=choices, preset=preset, values=values, overrides=overrides or ())
        return study, path.read_text(encoding="utf-8")
    target = given_data(target)
    values |= {"data": target, "name": study_name(path)}
    if not is_named(target, choices.sources):
        _check_path(target, path)
    return read_study(choices=choices, preset=preset or "quick", values=values, overrides=overrides or ()), ""


def given_data(target: str) -> str:
    """Return data as a command was given it: a folder of that name here comes before a data set such as food101."""
    from unfreeze.study.registries import registered

    return f"./{target}" if target in registered().sources and Path(target).is_dir() else target


def study_name(folder: Path) -> str:
    """Return a folder's name as a study's name: other characters than letters, digits, ., _ and - become -."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", folder.resolve().name).strip("._-") or "study"


def _check_path(target: str, path: Path) -> None:
    """Refuse what is neither data nor a study; what kinds of data there are, the data part knows."""
    if (path / "plan.json").is_file():
        raise UserError(
            f"{target} is a study directory",
            "a study file (.yaml) or a folder of images",
            f"give the study file with --out {target} to go on, or 'unfreeze report {target}' for its report",
        )
    if not path.exists():
        here = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
        near = difflib.get_close_matches(path.name, here, n=1)
        raise UserError(
            f"{target} does not exist",
            "a study file (.yaml) or a folder of images",
            "correct the path" + (f"; did you mean {path.parent / near[0]}?" if near else ""),
        )
    if not path.is_dir() and path.suffix.lower() not in _TABLES and not _is_table(path):
        raise UserError(
            f"{target} is neither a study file nor images",
            "a study file (.yaml), a folder of images, or a .csv or .parquet table of their paths and labels",
            "correct the path, or write a study file with 'unfreeze init DATA'",
        )


def _is_table(path: Path) -> bool:
    """Tell whether a file of an unusual name is a table."""
    from unfreeze.data.tables.read import looks_like_a_table

    return looks_like_a_table(path)


def _seeds(text: str) -> int | list[int]:
    if re.fullmatch(r"\d{1,9}", text.strip()):
        return int(text)
    if re.fullmatch(r"\d{1,9}(\s*,\s*\d{1,9})*,?", text.strip()):
        return [int(part) for part in text.split(",") if part.strip()]
    raise UserError(
        f"--seeds {text}", "a number of seeds, or seeds with commas", "for example --seeds 3 or --seeds 0,4"
    )
