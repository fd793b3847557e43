"""Read a study: presets, YAML files and command-line overrides."""

from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from unfreeze.config.choices import Choices, is_named
from unfreeze.config.hints import hint_for_override
from unfreeze.config.problems import find_problems, has_only, parse_study
from unfreeze.config.resolve import put
from unfreeze.config.schema import StudyConfig
from unfreeze.errors import UserError
from unfreeze.text import near


def presets() -> list[str]:
    """Return the names of the shipped presets."""
    folder = resources.files("unfreeze.config") / "presets"
    return sorted(entry.name.removesuffix(".yaml") for entry in folder.iterdir() if entry.name.endswith(".yaml"))


def preset_text(name: str) -> str:
    """Return a shipped preset as YAML text.

    Raises:
        UserError: there is no such preset.
    """
    if name not in presets():
        meant = "".join(f"; did you mean {close!r}?" for close in near(name, presets()))
        raise UserError(
            f"preset {name!r} is unknown{meant}",
            "one of " + ", ".join(presets()),
            "for example --preset quick",
        )
    return (resources.files("unfreeze.config") / "presets" / f"{name}.yaml").read_text(encoding="utf-8")


def load_yaml(text: str, origin: str) -> dict[str, Any]:
    """Parse YAML 1.2 (``1e-3`` is a number) into a mapping.

    Args:
        text: YAML.
        origin: what messages call it.

    Raises:
        UserError: invalid YAML (names the line), or not a mapping.
    """
    data = _load(text, origin)
    if not isinstance(data, dict):
        kinds = {type(None): "nothing", list: "a list"}
        raise UserError(
            f"{origin} contains {kinds.get(type(data), 'a single value')}, not keys with values",
            "a study: data, strategies, regimes, ...",
            "start from 'unfreeze init DATA'",
        )
    return data


def _load(text: str, origin: str) -> Any:
    try:
        return YAML(typ="safe", pure=True).load(text)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{origin}, line {mark.line + 1}, column {mark.column + 1}" if mark else origin
        problem = (error.problem or "broken YAML").splitlines()[0]
        raise _invalid_yaml(f"{where}: {problem}", "fix that line; spaces indent, never tabs") from error
    except YAMLError as error:
        raise _invalid_yaml(f"{origin}: {str(error).splitlines()[0]}", "write the file as UTF-8 YAML") from error
    except (ValueError, KeyError) as error:  # ruamel passes on Python's own errors, for example of the date 2020-13-45
        raise _invalid_yaml(f"{origin}: {error}", "put quotes around text") from error
    except RecursionError as error:
        raise _invalid_yaml(f"{origin} is nested too deeply", "close the brackets that are open") from error


def _invalid_yaml(given: str, fix: str, expected: str = "YAML, as in studies/") -> UserError:
    """Return the error for invalid YAML."""
    works = "for example --set epochs=5" if given.startswith("--set") else "'unfreeze init DATA' writes one that works"
    return UserError(given, expected, f"{fix}; {works}")


def read_study(
    path: Path | None = None,
    *,
    choices: Choices,
    preset: str | None = None,
    values: Mapping[str, Any] | None = None,
    overrides: Sequence[str] = (),
) -> StudyConfig:
    """Read a study: ``overrides`` over ``values`` over the file over the preset over the defaults.

    Args:
        path: a study file; relative paths in it refer to its folder.
        choices: names that a study may use.
        preset: name of a shipped preset that the file overrides.
        values: further top-level values, such as keyword arguments of ``Study``.
        overrides: ``key.path=value`` texts with values in YAML; relative paths refer to the current folder.

    Raises:
        UserError: the study is invalid; lists every problem with the path of its key.
    """
    data: dict[str, Any] = {}
    origin = str(path) if path else "the study"
    if preset:
        data |= load_yaml(preset_text(preset), f"preset {preset}")
    if path:
        if not path.is_file():
            raise UserError(
                f"{path} is not a file",
                "a study file (YAML)",
                "correct the path, or write a study file with 'unfreeze init DATA'",
            )
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise _invalid_yaml(f"{path} is not UTF-8 text", "save the file as UTF-8", "YAML in UTF-8") from error
        data |= {"name": _name_of(path)} | _with_paths(load_yaml(text, origin), path.resolve().parent, choices)
    data |= _with_paths(dict(values or {}), Path.cwd(), choices)
    for override in overrides:
        data = _overridden(data, override, choices)
    return parse_study(data, origin, choices)


def _name_of(path: Path) -> str:
    letters = (letter if letter.isascii() and letter.isalnum() or letter in "._-" else "-" for letter in path.stem)
    return "".join(letters).lstrip("._-") or "study"


def _with_paths(data: Mapping[str, Any], folder: Path, choices: Choices) -> dict[str, Any]:
    """Return a study with absolute paths; relative ones refer to ``folder``."""
    made = _with_weights(data, folder)
    if "data" in made:
        made["data"] = _data_path(made["data"], folder, choices)
    if isinstance(made.get("tests"), dict):
        made["tests"] = {name: _data_path(value, folder, choices) for name, value in made["tests"].items()}
    if isinstance(made.get("strategies"), dict):
        made["strategies"] = {name: _with_weights(settings, folder) for name, settings in made["strategies"].items()}
    return made


def _data_path(value: Any, folder: Path, choices: Choices) -> Any:
    if isinstance(value, str) and is_named(value, choices.sources):
        return value
    return _absolute(value, folder) if isinstance(value, str | Path) else value


def _with_weights(settings: Any, folder: Path) -> Any:
    """Return settings with absolute paths of weights: in weights, backbone and tune."""
    if isinstance(settings, str | Path) and str(settings).endswith(".safetensors"):
        return _absolute(settings, folder)
    if not isinstance(settings, dict):
        return settings
    made = {**settings}
    for key in made.keys() & {"weights", "backbone"}:
        made[key] = _with_weights(made[key], folder)
    if isinstance(made.get("tune"), dict):
        made["tune"] = {
            path: [_with_weights(value, folder) for value in values] if isinstance(values, list) else values
            for path, values in made["tune"].items()
        }
    return made


def _absolute(path: str | Path, folder: Path) -> str:
    try:
        return str(folder / Path(path).expanduser())
    except RuntimeError as error:
        raise UserError(
            f"{path}: the home folder of this user is unknown",
            "a path",
            "write the whole path, for example data: /home/NAME/photos",
        ) from error


def _overridden(data: dict[str, Any], override: str, choices: Choices) -> dict[str, Any]:
    """Return a study with one ``key.path=value`` text applied."""
    key, equals, text = override.partition("=")
    if not equals or not all(key.split(".")):
        raise UserError(
            f"--set {override!r} has no '='" if not equals else f"--set {override!r} lacks a key before '='",
            "--set key.path=value",
            "for example --set epochs=5 or --set strategies.head.optimizer.lr=1e-3",
        )
    value = _load(text, f"--set {key}")
    path = tuple(key.split("."))
    try:
        made = put(data, path, value)
    except ValueError as error:
        works = has_only([problem.text for problem in find_problems(data, choices)[1]], choices)
        hint = hint_for_override(StudyConfig, data, path, value, works)
        raise UserError(
            f"--set {override!r}: {error}{hint.question if hint else ''}",
            "a path of keys in the study",
            hint.setting if hint else "docs/study-file.md lists the keys; for example --set epochs=5",
        ) from error
    return _with_paths(made, Path.cwd(), choices)  # paths from the file are absolute already and stay as they are


def overridden(overrides: Sequence[str], choices: Choices) -> dict[str, Any]:
    """Return the values set by ``key.path=value`` texts as nested data."""
    data: dict[str, Any] = {}
    for override in overrides:
        data = _overridden(data, override, choices)
    return data
