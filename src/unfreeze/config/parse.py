"""From YAML to a typed study: presets, overrides, and every problem of the file in one message."""

import datetime
import difflib
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from unfreeze.config import study as shapes
from unfreeze.config.resolve import candidates, put, swept
from unfreeze.config.study import StudyConfig
from unfreeze.errors import UserError

_TAGS = {shapes.WORD, shapes.NUMBER, shapes.MAPPING}
_EXPECTED = {  # what pydantic calls by Python's names, or by several
    "dict_type": "should be a mapping of keys to values",
    "model_type": "should be a mapping of keys to values",
    "tuple_type": "should be a list",
    "string_type": "should be text",
    "bool_type": "should be true or false",
    "bool_parsing": "should be true or false",
    "int_type": "should be a whole number",
    "int_parsing": "should be a whole number",
    "int_parsing_size": "should be a whole number",
    "int_from_float": "should be a whole number",
    "float_type": "should be a number",
    "float_parsing": "should be a number",
    "too_short": "should have at least one entry",
}


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
    data = _load(text, origin)
    if not isinstance(data, dict):
        kinds = {type(None): "nothing", list: "a list"}
        raise UserError(
            f"{origin} holds {kinds.get(type(data), 'a single value')}, not keys with values",
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
        raise UserError(
            f"{where}: {problem}", "YAML, as in studies/", "mend that line; spaces indent, never tabs"
        ) from error
    except YAMLError as error:
        problem = str(error).splitlines()[0]
        raise UserError(f"{origin}: {problem}", "YAML, as in studies/", "write the file as UTF-8 YAML") from error
    except (ValueError, KeyError) as error:  # ruamel lets Python's own errors out: 2020-13-45 is no date
        raise UserError(f"{origin}: {error}", "YAML, as in studies/", "put quotes around text") from error
    except RecursionError as error:
        raise UserError(
            f"{origin} is nested too deeply", "YAML, as in studies/", "close the brackets that are open"
        ) from error


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
    """Turn plain data into a typed study, its sweeps spelled out, or say everything that is wrong with it."""
    try:
        study = StudyConfig.model_validate(data)
    except ValidationError as error:
        raise _problems(origin, _explain(error)) from error
    wrong: list[str] = []
    try:
        study = swept(study)
    except ValueError as error:
        wrong.append(str(error))
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
    letters = (letter if letter.isascii() and letter.isalnum() or letter in "._-" else "-" for letter in path.stem)
    return "".join(letters).lstrip("._-") or "study"


def _with_paths(data: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Make the paths of a study absolute, since relative ones refer to where they were written."""

    def absolute(value: Any) -> Any:
        if not isinstance(value, str | Path) or value == "food101" or str(value).startswith("hf:"):
            return value
        try:
            return str(folder / Path(value).expanduser())
        except RuntimeError as error:
            raise UserError(f"{value} begins with a user that is not known", "a path", "write it in full") from error

    def weights(settings: Any) -> Any:
        if isinstance(settings, str | Path) and str(settings).endswith(".safetensors"):
            return absolute(settings)
        if not isinstance(settings, dict):
            return settings
        settings = {**settings}
        for key in settings.keys() & {"weights", "backbone"}:
            settings[key] = weights(settings[key])
        if isinstance(settings.get("tune"), dict):
            settings["tune"] = {
                path: [weights(value) for value in values] if isinstance(values, list) else values
                for path, values in settings["tune"].items()
            }
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
    if not equals or not all(key.split(".")):
        raise UserError(
            f"--set {override!r} has no '='" if not equals else f"--set {override!r} lacks a key before '='",
            "--set key.path=value",
            "for example --set epochs=5 or --set strategies.head.optimizer.lr=1e-3",
        )
    value = _load(text, f"--set {key}")
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
        given, kind, context = problem["input"], problem["type"], problem.get("ctx", {})
        *way, last = problem["loc"] or ("",)
        is_key = last not in _TAGS or kind == "extra_forbidden"
        place = [part for part in way if part not in _TAGS] + [last] * is_key
        is_name = kind.startswith("string_") and place[-1:] == ["[key]"]
        path = ".".join(map(str, place[:-1] if is_name else place))
        if kind == "extra_forbidden":
            lines.append(f"{path}: unknown key{_meant(model, place)}")
        elif kind == "missing":
            lines.append(f"{path}: missing")
        elif kind == "value_error":
            lines.append(f"{path}: {context['error']}" if path else str(context["error"]))
        elif kind == "union_tag_invalid":
            lines.append(f"{path}: {_shown(given)} is not understood here")
        else:
            lines.append(f"{path}: {'the name ' if is_name else ''}{_expected(problem)}, but is {_shown(given)}")
    return lines


def _meant(model: type[BaseModel], place: Sequence[int | str]) -> str:
    """Say what an unknown key may have meant: at a file's top a key of one of its parts, else one that is alike."""
    word = str(place[-1])
    within = [
        f"{name}.{word}"
        for name, field in (model.model_fields.items() if len(place) == 1 else ())
        if isinstance(field.annotation, type)
        and issubclass(field.annotation, BaseModel)
        and word in field.annotation.model_fields
    ]
    return f"; did you mean {within[0]!r}?" if within else _did_you_mean(word, _keys_beside(model, place))


def _expected(problem: ErrorDetails) -> str:
    kind, given, context = problem["type"], problem["input"], problem.get("ctx", {})
    if kind == "literal_error" and context["expected"] == "False":
        return "should be false or a mapping of keys to values"
    if kind == "string_type" and isinstance(given, bool | int | float | datetime.date):
        return "should be text (put quotes around it)"
    message = _EXPECTED.get(kind) or problem["msg"].removeprefix("Input ").removeprefix("String ")
    return message[0].lower() + message[1:]


def _shown(value: Any) -> str:
    if isinstance(value, datetime.date):
        return str(value)
    try:
        text = repr(value)
    except ValueError:  # Python refuses to write out numbers of thousands of digits
        return "a number too long to show"
    return text if len(text) <= 60 else text[:57] + "..."


def _keys_beside(model: type[BaseModel], place: Sequence[int | str]) -> list[str]:
    """Return the keys that were possible where an unknown one stands, by walking the models along its path."""
    current: Any = model
    for part in place[:-1]:
        if getattr(current, "__origin__", None) in (dict, tuple):
            current = next(argument for argument in reversed(current.__args__) if argument is not ...)
        else:
            field = getattr(current, "model_fields", {}).get(str(part))
            current = field and field.annotation
        current = _model_in(current) or current
    return list(getattr(current, "model_fields", ()))


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """Find the model among the ways to give a value; what is a dict or tuple of models stays one."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    if getattr(annotation, "__origin__", None) in (dict, tuple):
        return None
    return next(filter(None, map(_model_in, getattr(annotation, "__args__", ()))), None)
