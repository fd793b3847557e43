"""What others build on, as text: Python names, settings, commands, exit codes, events, files, columns and JSON keys.

``python -m tests.support.public_surface`` writes it to ``public_surface.txt``, with which ``test_public_surface.py``
compares it.
"""

import contextlib
import dataclasses
import inspect
import io
import json
import os
import re
import signal
import tempfile
import typing
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import typer

import unfreeze
from tests.support.worlds import tiny_study, write_photographs
from unfreeze import Results
from unfreeze.cli.app import app, main
from unfreeze.cli.interrupts import resumable
from unfreeze.config.resolve import Cell
from unfreeze.config.schema import StudyConfig
from unfreeze.errors import UserError
from unfreeze.events import Event
from unfreeze.study.network_plan import Plan
from unfreeze.study.registries import registered

STORED = Path(__file__).with_name("public_surface.txt")
CLOSED = ("engine", "refused", "study", "suspects")
"""Keys under which names are a machine's, a setting's, or those of ``wrong``, or depend on numbers."""
GENERAL = {
    r"^$": "CANDIDATE",
    r"^(circle|square|triangle)$": "CLASS",
    r"^(plain|twin|wild)$": "STRATEGY",
    r"^small$": "REGIME",
    r"^small\.s0$": "REGIME.sSEED",
    r"\b(plain|twin|wild)\.small\.s0\b": "CELL",
    r"^test_resnet \(.*pixels$": "PREFIX",
    r"\b(wrong|suspects)-.*\.webp$": "PICTURE.webp",
}
"""Names that are this study's, and what stands for them."""


def public_surface(folder: Path) -> list[str]:
    """Return the lines, sorted; a tiny study runs in the folder."""
    lines = [*_python(), *_settings(), *_commands(), *_events(), *_interrupts(), *_study_directory(folder)]
    return sorted(set(lines))


def _python() -> Iterator[str]:
    for name in unfreeze.__all__:
        yield f"python unfreeze.{name}"
        yield from _members(getattr(unfreeze, name))
    for kind in (Plan, Cell, UserError):
        yield from _members(kind)


def _members(kind: type) -> Iterator[str]:
    yield f"python {kind.__name__}{_signature(kind.__init__)}"
    for field in dataclasses.fields(kind) if dataclasses.is_dataclass(kind) else ():
        yield f"python {kind.__name__}.{field.name}"
    for name, member in vars(kind).items():
        if name.startswith("_"):
            continue
        if isinstance(member, property):
            yield f"python {kind.__name__}.{name}"
        elif callable(function := getattr(kind, name)):
            yield f"python {kind.__name__}.{name}{_signature(function)}"


def _signature(function: Any) -> str:
    """Return names, kinds and defaults of the parameters; types are not shown, as they name modules."""
    shown = []
    for one in inspect.signature(function).parameters.values():
        default = one.default
        if default is not one.empty and not isinstance(default, str | int | float | tuple | None):
            default = Ellipsis
        shown.append(one.replace(annotation=one.empty, default=default))
    return str(inspect.Signature(shown)).replace("Ellipsis", "...").replace("(self, ", "(").replace("(self)", "()")


def _settings() -> Iterator[str]:
    schema = StudyConfig.model_json_schema()
    for line in _keys_of(schema, schema["$defs"], ""):
        yield f"setting {line}"


def _keys_of(schema: dict[str, Any], parts: dict[str, Any], path: str) -> Iterator[str]:
    if "$ref" in schema:
        yield from _keys_of(parts[schema["$ref"].rpartition("/")[2]], parts, path)
    for choice in (*schema.get("anyOf", ()), *schema.get("oneOf", ())):
        yield from _keys_of(choice, parts, path)
    for words in schema.get("enum", ()) or [schema[name] for name in ("const",) if name in schema]:
        yield f"{path}: {words}"
    for word in getattr(registered(), schema["choices"]) if isinstance(schema.get("choices"), str) else ():
        yield f"{path}: {word}"
    for name in ("additionalProperties", "items"):
        if isinstance(schema.get(name), dict):
            yield from _keys_of(schema[name], parts, path + ("[]" if name == "items" else ".NAME"))
    for name, inner in schema.get("properties", {}).items():
        inside = f"{path}.{name}" if path else name
        plain = "default" in inner and not (isinstance(inner["default"], dict) and inner["default"])
        yield f"{inside} (default {json.dumps(inner['default'])})" if plain else inside
        yield from _keys_of(inner, parts, inside)


def _commands() -> Iterator[str]:
    yield from _parameters("unfreeze", typer.main.get_command(app))


def _parameters(name: str, command: Any) -> Iterator[str]:
    yield f"command {name}"
    for one in command.params:
        words = one.metavar if one.param_type_name == "argument" else "/".join([*one.opts, *one.secondary_opts])
        takes = f" {one.metavar}" if one.param_type_name == "option" and one.metavar else ""
        default = one.show_default if isinstance(one.show_default, str) else one.default
        about = ["required" if one.required else f"default {default}", *["repeated"] * one.multiple]
        yield f"command {name} {words}{takes} ({', '.join(about)})"
    for inner, other in getattr(command, "commands", {}).items():
        yield from _parameters(f"{name} {inner}", other)


def _events() -> Iterator[str]:
    for kind in typing.get_args(Event):
        yield f"event {kind.__name__}({', '.join(field.name for field in dataclasses.fields(kind))})"


def _interrupts() -> Iterator[str]:
    for number in (signal.SIGINT, signal.SIGTERM):

        def work(may_end: Callable[[], None], number: signal.Signals = number) -> None:
            signal.raise_signal(number)
            may_end()

        before = signal.signal(number, signal.default_int_handler)  # a shell's background processes ignore SIGINT
        try:
            with contextlib.redirect_stderr(io.StringIO()):
                resumable(work)
        except typer.Exit as end:
            yield f"exit code {end.exit_code}: {number.name}"
        finally:
            signal.signal(number, before)


def _study_directory(folder: Path) -> Iterator[str]:
    """Yield what commands write and print: a study of two cells that finish and one that diverges, and its data."""
    head = {"train": "head", "optimizer": {"lr": 1e-2}}
    further = write_photographs(folder / "further", per_class=2, seed=1)
    study = tiny_study(
        folder,
        data=str(folder / "table.csv"),
        strategies={"plain": head, "twin": head | {"epochs": 1}, "wild": {"train": "all", "optimizer": {"lr": 1e30}}},
        tests={"SITE": str(further)},
    )
    # One picture under two labels makes the check write its page.
    (folder / "photographs/square/copy.png").write_bytes((folder / "photographs/circle/000.png").read_bytes())
    paths = sorted((folder / "photographs").glob("*/*.png"))
    names = [f"photographs/{path.parent.name}/{path.name},{path.parent.name}" for path in paths]
    rows = [f"{name},{number % 2}" for number, name in enumerate(names)]
    (folder / "table.csv").write_text("\n".join(["path,label,camera", *rows, ""]), encoding="utf-8")
    (folder / "study.yaml").write_text(json.dumps(study), encoding="utf-8")
    for meaning, arguments in {
        "done": ("check", "photographs", "--json"),
        "wrong input": ("check", "nowhere", "--json"),
        "wrote a study file": ("init", "photographs", "--json", "--out", "begun.yaml"),
        "planned": ("plan", "study.yaml", "--json"),
        "some cells failed": ("run", "study.yaml", "--out", "out", "--json"),
    }.items():
        code, said = _said(folder, *arguments)
        yield f"exit code {code}: {meaning}"
        for key in _json_keys(json.loads(said)) if said else ():
            yield f"json {arguments[0]} --json: {key}"
    out = folder / "out"
    for path in (path for path in out.rglob("*") if path.is_file()):
        name = _general(path.relative_to(out).as_posix())
        yield f"file {name}"
        if path.suffix == ".json":
            for key in _json_keys(json.loads(path.read_text(encoding="utf-8"))):
                yield f"json {name}: {key}"
        if path.suffix == ".csv":
            yield from _columns(name, path.read_text(encoding="utf-8").partition("\n")[0].split(","))
    results = Results(out)
    for name in ("table", "history", "comparisons", "scores"):
        yield from _columns(f"Results.{name}", getattr(results, name).columns)
    yield from _columns("Results.by", results.by("camera").columns)
    yield from _columns("Results.compare", results.compare("plain", "twin").columns)


def _columns(table: str, columns: Iterable[str]) -> Iterator[str]:
    """Yield columns with their places: a new one belongs at the end."""
    for place, column in enumerate(columns, 1):
        yield f"column {table} {place:02}: {_general(column)}"


def _said(folder: Path, *arguments: str) -> tuple[int, str]:
    """Run a command in a folder, and return its exit code and what it prints."""
    said = io.StringIO()
    with contextlib.chdir(folder), contextlib.redirect_stdout(said), contextlib.redirect_stderr(io.StringIO()):
        return main(arguments), said.getvalue()


def _json_keys(data: Any, path: str = "") -> Iterator[str]:
    if isinstance(data, list):
        for entry in data:
            yield from _json_keys(entry, path + "[]")
    elif isinstance(data, dict) and path.rpartition(".")[2] not in CLOSED:
        for key, value in data.items():
            inside = f"{path}.{_general(key)}" if path else _general(key)
            yield inside
            yield from _json_keys(value, inside)


def _general(name: str) -> str:
    """Return a name with the parts that are this study's in capitals."""
    for pattern, word in GENERAL.items():
        name = re.sub(pattern, word, name)
    return name


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as place:
        os.environ["UNFREEZE_CACHE"] = str(Path(place) / "cache")
        STORED.write_text("".join(f"{line}\n" for line in public_surface(Path(place))), encoding="utf-8")
