"""From YAML to a typed study: presets, overrides, and every problem of the file in one message."""

import difflib
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from unfreeze.config import study as shapes
from unfreeze.config.resolve import candidates, put
from unfreeze.config.study import StudyConfig
from unfreeze.errors import UserError

_TAGS = {shapes.WORD, shapes.NUMBER, shapes.MAPPING}


def presets() -> list[str]:
    """Return the names of the presets that the package ships."""
    folder = resources.files("unfreeze.config") / "presets"
    return sorted(entry.name.removesuffix(".yaml") for entry in folder.iterdir() if entry.name.endswith(".yaml"))


def preset_text(name: str) -> str:
    """Return a shipped preset as YAML text.

    Raises:
        UserError: there is no such preset.
    """
    if name not in presets():
        raise UserError(
            f"preset {name!r} is unknown{_did_you_mean(name, presets())}",
            "one of " + ", ".join(presets()),
            "name one of them, or give a study file",
        )
    return (resources.files("unfreeze.config") / "presets" / f"{name}.yaml").read_text(encoding="utf-8")


def load_yaml(text: str, origin: str) -> dict[str, Any]:
    """Parse YAML 1.2 (``1e-3`` is a number) into a mapping.

    Raises:
        UserError: broken YAML, with its line; or something other than a mapping.
    """
    try:
        data = YAML(typ="safe", pure=True).load(text)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{origin}, line {mark.line + 1}, column {mark.column + 1}" if mark else origin
        problem = (error.problem or "broken YAML").splitlines()[0]
        raise UserError(
            f"{where}: {problem}", "YAML, as in studies/", "mend that line; spaces indent, never tabs"
        ) from error
    except YAMLError as error:
        raise UserError(f"{origin}: {error}", "YAML, as in studies/", "write the file as UTF-8 YAML") from error
    if not isinstance(data, dict):
        raise UserError(
            f"{origin} holds {'nothing' if data is None else type(data).__name__}, not keys with values",
            "a study: data, strategies, regimes, ...",
            "start from 'unfreeze init DATA'",
        )
    return data


def read_study(
    path: Path | None = None,
    *,
    preset: str | None = None,
    values: Mapping[str, Any] | None = None,
    overrides: Sequence[str] = (),
) -> StudyConfig:
    """Read a study: ``overrides`` over ``values`` over the file over the preset over the defaults.

    Args:
        path: a study file; relative paths in it refer to its folder.
        preset: name of a shipped preset that lies beneath the file.
        values: further top-level values, as keyword arguments of ``Study`` give them.
        overrides: ``key.path=value`` texts, the value read as YAML; relative paths refer to the current folder.

    Raises:
        UserError: names everything that is wrong, each with the path of its key.
    """
    data: dict[str, Any] = {}
    origin = str(path) if path else "the study"
    if preset:
        data |= load_yaml(preset_text(preset), f"preset {preset}")
    if path:
        if not path.is_file():
            raise UserError(
                f"{path} is no file", "a study file (YAML)", "check the path, or write one with 'unfreeze init DATA'"
            )
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise UserError(f"{path} is not UTF-8 text", "YAML in UTF-8", "save the file as UTF-8") from error
        data |= {"name": _name_of(path)} | _with_paths(load_yaml(text, origin), path.resolve().parent)
    data |= _with_paths(dict(values or {}), Path.cwd())
    for override in overrides:
        _override(data, override)
    return parse_study(data, origin)


def parse_study(data: Mapping[str, Any], origin: str) -> StudyConfig:
    """Turn plain data into a typed study, or say everything that is wrong with it."""
    try:
        study = StudyConfig.model_validate(data)
    except ValidationError as error:
        raise _problems(origin, _explain(error)) from error
    wrong: list[str] = []
    for name in study.strategies:
        try:
            candidates(study, name)
        except ValidationError as error:
            wrong += [f"strategies.{name}.tune: {line}" for line in _explain(error, shapes.StrategyConfig)]
        except ValueError as error:
            wrong.append(f"strategies.{name}: {error}")
    if wrong:
        raise _problems(origin, wrong)
    return study


def _problems(origin: str, lines: list[str]) -> UserError:
    count = "1 problem" if len(lines) == 1 else f"{len(lines)} problems"
    return UserError(
        f"{origin} has {count}:" + "".join(f"\n  - {line}" for line in lines),
        "the keys and values that docs/study-file.md lists",
        "change the lines named above; nothing has run yet",
    )


def _name_of(path: Path) -> str:
    return "".join(letter if letter.isascii() and letter.isalnum() or letter in "._-" else "-" for letter in path.stem)


def _with_paths(data: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Make the paths of a study absolute, since relative ones refer to where they were written."""

    def absolute(value: Any) -> Any:
        is_path = isinstance(value, str) and value != "food101" and not value.startswith("hf:")
        return str(folder / Path(value).expanduser()) if is_path else value

    def weights(settings: Any) -> Any:
        if not isinstance(settings, dict):
            return settings
        settings = dict(settings)
        if isinstance(settings.get("weights"), str) and settings["weights"].endswith(".safetensors"):
            settings["weights"] = absolute(settings["weights"])
        if isinstance(settings.get("backbone"), dict):
            settings["backbone"] = weights(settings["backbone"])
        return settings

    data = weights(data)
    if "data" in data:
        data["data"] = absolute(data["data"])
    if isinstance(data.get("tests"), dict):
        data["tests"] = {name: absolute(value) for name, value in data["tests"].items()}
    if isinstance(data.get("strategies"), dict):
        data["strategies"] = {name: weights(settings) for name, settings in data["strategies"].items()}
    return data


def _override(data: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise UserError(
            f"--set {override!r} has no '='" if not equals else f"--set {override!r} names no key",
            "--set key.path=value",
            "for example --set epochs=5 or --set strategies.head.optimizer.lr=1e-3",
        )
    value = load_yaml(f"value: {text}", f"--set {key}")["value"]
    try:
        data |= put(data, key.split("."), value)
    except ValueError as error:
        raise UserError(
            f"--set {override!r}: {error}", "a path of keys in the study", "see docs/study-file.md"
        ) from error
    data |= _with_paths(data, Path.cwd())  # paths from the file are absolute already, and stay


def _did_you_mean(word: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(word, known, n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def _explain(error: ValidationError, model: type[BaseModel] = StudyConfig) -> list[str]:
    """Turn pydantic's errors into lines ``key.path: what is wrong``."""
    lines = []
    for problem in error.errors(include_url=False):
        place = [part for part in problem["loc"] if part not in _TAGS]
        path = ".".join(map(str, place)) or "the study"
        given, kind, context = problem["input"], problem["type"], problem.get("ctx", {})
        if kind == "extra_forbidden":
            lines.append(f"{path}: unknown key{_did_you_mean(str(place[-1]), _keys_beside(model, place))}")
        elif kind == "missing":
            lines.append(f"{path}: missing")
        elif kind == "value_error":
            lines.append(f"{path}: {context['error']}")
        elif kind == "union_tag_invalid":
            lines.append(f"{path}: {given!r} is not understood here")
        else:
            message = problem["msg"].replace("Input should be", "should be").replace("valid tuple", "list")
            lines.append(f"{path}: {message[0].lower() + message[1:]}, but is {_shown(given)}")
    return lines


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _keys_beside(model: type[BaseModel], place: Sequence[int | str]) -> list[str]:
    """Return the keys that were possible where an unknown one stands, by walking the models along its path."""
    current: Any = model
    for part in place[:-1]:
        if getattr(current, "__origin__", None) in (dict, tuple):
            current = next(argument for argument in reversed(current.__args__) if argument is not ...)
        else:
            current = current.model_fields[str(part)].annotation
        current = _model_in(current) or current
    return list(current.model_fields)


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """Find the model among the ways to give a value; what is a dict or tuple of models stays one."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    if getattr(annotation, "__origin__", None) in (dict, tuple):
        return None
    return next(filter(None, map(_model_in, getattr(annotation, "__args__", ()))), None)
