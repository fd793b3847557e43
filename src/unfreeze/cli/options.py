"""Options shared by several commands, and the study that they specify."""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from unfreeze.errors import UserError
from unfreeze.text import near

if TYPE_CHECKING:
    from unfreeze.config.schema import StudyConfig


Target = Annotated[
    str,
    typer.Argument(
        metavar="STUDY|DATA",
        show_default=False,
        help="Study file (.yaml); or images, as a folder of class folders or a table.",
    ),
]

Preset = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Base settings that the study overrides: quick, thorough, article or demo. For images: quick.",
    ),
]

BackboneName = Annotated[
    str | None,
    typer.Option("--backbone", metavar="NAME", help="Backbone to use, by its timm name, for example resnet50."),
]
Seeds = Annotated[str | None, typer.Option(metavar="N", help="Number of seeds (3), or a list of seeds (0,4,7).")]

Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Override a setting, for example epochs=5. KEY may be a path: strategies.head.epochs. Repeatable.",
    ),
]

Out = Annotated[
    Path | None,
    typer.Option("--out", metavar="DIR", help="Study directory, where results are written.", show_default="runs/NAME"),
]

Time = Annotated[
    str | None,
    typer.Option(
        "--time", metavar="TIME", help="Time limit, for example 30m or 1h30m. The most informative cells run first."
    ),
]

Parallel = Annotated[
    int, typer.Option(metavar="N", help="Number of cells to run at once, each in a process of its own.")
]

AsJson = Annotated[bool, typer.Option("--json", help="Print the output as one JSON object.")]
_STUDY_FILES = (".yaml", ".yml")


# A copy of the suffixes in data/tables/read.py, which is slow to import.
_TABLES = (
    ".csv", ".tsv", ".tab", ".psv", ".txt", ".jsonl", ".ndjson", ".parquet", ".xlsx", ".xls", ".ods", ".json",
)  # fmt: skip


def asked_study(
    target: str, preset: str | None, backbone: str | None, seeds: str | None, overrides: list[str] | None
) -> "tuple[StudyConfig, str]":
    """Return the study specified by a command's arguments, and the text of its study file ("" if images are given).

    Raises:
        UserError: the study is invalid; lists every problem.
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
    """Return a data argument; a local folder takes precedence over a named data set such as food101."""
    from unfreeze.study.registries import registered

    return f"./{target}" if target in registered().sources and Path(target).is_dir() else target


def study_name(folder: Path) -> str:
    """Return a folder's name as a study name: characters other than letters, digits, ., _ and - become -."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", folder.resolve().name).strip("._-") or "study"


def _check_path(target: str, path: Path) -> None:
    """Reject a path that is neither images nor a study file; `data` decides which images can be read."""
    if (path / "plan.json").is_file():
        raise UserError(
            f"{target} is a study directory",
            "a study file (.yaml) or a folder of images",
            f"give the study file with --out {target} to resume it, or 'unfreeze report {target}' for its report",
        )
    if not path.exists():
        here = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
        similar = near(path.name, here)
        raise UserError(
            f"{target} does not exist",
            "a study file (.yaml) or a folder of images",
            "correct the path" + (f"; did you mean {path.parent / similar[0]}?" if similar else ""),
        )
    if not path.is_dir() and path.suffix.lower() not in _TABLES and not _is_table(path):
        raise UserError(
            f"{target} is neither a study file nor images",
            "a study file (.yaml), a folder of images, or a .csv or .parquet table of their paths and labels",
            "correct the path, or write a study file with 'unfreeze init DATA'",
        )


def _is_table(path: Path) -> bool:
    """Return whether a file without a known suffix is a table."""
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
