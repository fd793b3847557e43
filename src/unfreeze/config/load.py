"""Read a study file: presets, overrides, and all of its problems in one message."""

import datetime
import difflib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from unfreeze.config import schema as shapes
from unfreeze.config.choices import Choices, is_named
from unfreeze.config.hints import (
    Hint,
    as_yaml,
    example_of,
    key_meant,
    name_meant,
    no_setting,
    quoted,
    set_meant,
    value_meant,
    without,
)
from unfreeze.config.resolve import candidates, put, swept
from unfreeze.config.schema import StudyConfig
from unfreeze.errors import UserError

_TAGS = {shapes.WORD, shapes.NUMBER, shapes.MAPPING}

HINTED = 10
"""Problems of a study for which a hint is looked for: each is tried."""

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
            "for example --preset quick",
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
        raise _broken(f"{where}: {problem}", "fix that line; spaces indent, never tabs") from error
    except YAMLError as error:
        raise _broken(f"{origin}: {str(error).splitlines()[0]}", "write the file as UTF-8 YAML") from error
    except (ValueError, KeyError) as error:  # ruamel lets Python's own errors out: 2020-13-45 is no date
        raise _broken(f"{origin}: {error}", "put quotes around text") from error
    except RecursionError as error:
        raise _broken(f"{origin} is nested too deeply", "close the brackets that are open") from error


def _broken(given: str, fix: str, expected: str = "YAML, as in studies/") -> UserError:
    """Return what is said of text that is no YAML, with something that is."""
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
        choices: names that there are.
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
            raise _broken(f"{path} is not UTF-8 text", "save the file as UTF-8", "YAML in UTF-8") from error
        data |= {"name": _name_of(path)} | _with_paths(load_yaml(text, origin), path.resolve().parent, choices)
    data |= _with_paths(dict(values or {}), Path.cwd(), choices)
    for override in overrides:
        _override(data, override, choices)
    return parse_study(data, origin, choices)


def parse_study(data: Mapping[str, Any], origin: str, choices: Choices) -> StudyConfig:
    """Turn plain data into a typed study, its sweeps spelled out, or say everything that is wrong with it."""
    study, faults = _checked(data, choices)
    if study is None or faults:
        raise _problems(origin, data, faults, choices)
    return study


@dataclass(frozen=True)
class _Fault:
    """Something that is wrong with a study: what is said of it, and where.

    Attributes:
        text: ``key.path: what is wrong``.
        kind: "key" of one that is unknown, "value" of one that is not understood, "missing" of one that has to be
            there, "name" of a strategy that lacks what it needs, "weights" of one that would freeze random ones; "" of
            what no hint can fix.
        place: its keys; in a strategy whose tuned paths it is about, from there.
        given: the value there.
        tuned: the name of that strategy.
    """

    text: str
    kind: str = ""
    place: tuple[str, ...] = ()
    given: Any = None
    tuned: str = ""


def _checked(data: Mapping[str, Any], choices: Choices) -> tuple[StudyConfig | None, list[_Fault]]:
    """Return the study that plain data gives, if it does, and what is wrong with it."""
    try:
        study = StudyConfig.model_validate(data, context=choices)
    except ValidationError as error:
        return None, _faults(error)
    found: list[_Fault] = []
    try:
        study = swept(study)
    except ValueError as error:
        found.append(_Fault(str(error)))
    for name in study.strategies:
        try:
            candidates(study, name, choices)
        except ValidationError as error:
            found += [
                replace(fault, text=f"strategies.{name}.tune: {fault.text}", tuned=name) for fault in _faults(error)
            ]
        except ValueError as error:
            text, place = f"strategies.{name}: {error}", ("strategies", name)
            if str(error).startswith("weights: none"):
                found.append(_Fault(text, "weights", (*place, "weights"), "none"))
            else:
                found.append(_Fault(text, "value", (*place, "tune"), {}))
    return study, found


def _problems(origin: str, data: Mapping[str, Any], faults: Sequence[_Fault], choices: Choices) -> UserError:
    """Say everything that is wrong with a study, what it may have meant, and what fixes it."""
    lines = []
    fixes: dict[str, list[str]] = {"": [], LEAVE: [], CORRECT: [], "set": []}
    for number, fault in enumerate(faults):
        more, kind, fix = _hint(data, fault, choices) if number < HINTED else ("", "", "")
        lines.append(f"\n  - {fault.text}{more}")
        fixes[kind].append(fix)
    parts = [f"{kind} {', '.join(dict.fromkeys(fixes[kind]))}" for kind in (LEAVE, CORRECT) if fixes[kind]]
    parts += dict.fromkeys(fixes["set"])
    if fixes[""]:
        other = "other " if parts else ""
        parts = [f"change the {other}lines named above", *(parts or ["'unfreeze init DATA' writes a study that works"])]
    return UserError(
        f"{origin} has {'1 problem' if len(lines) == 1 else f'{len(lines)} problems'}:" + "".join(lines),
        "the keys and values that docs/study-file.md lists",
        "; ".join(parts),
    )


LEAVE, CORRECT = "leave out", "correct or leave out"


def _hint(data: Mapping[str, Any], fault: _Fault, choices: Choices) -> tuple[str, str, str]:
    """Return how a problem's line goes on, and what fixes it: its kind and words, "" where nothing is known."""
    place = ".".join(fault.place)
    if fault.tuned:
        question, line = _tuned_hint(data, fault, choices)
        return question, "set" if line else "", line
    if fault.kind == "key" and (said := no_setting(fault.place[-1])):
        return f"; {said}", LEAVE, place
    if not fault.kind:
        return "", "", ""
    rest = without(data, fault.place)
    left = {one.text for one in _checked(rest, choices)[1]}
    value = partial(value_meant, choices)
    hints: dict[str, Callable[..., Hint | None]] = {"key": key_meant, "name": name_meant}
    meant = (hints | {"value": value, "weights": value}).get(fault.kind)
    works = _works(left, choices)
    if meant and (hint := meant(StudyConfig, data, fault.place, fault.given, works)):
        question = "" if fault.kind == "weights" else hint.question
        return (question, "set", hint.line) if hint.line else (question, LEAVE, place)
    if fault.kind == "key":
        return "", LEAVE, place
    if fault.kind == "value" and isinstance(fault.given, Mapping) and fault.given:
        key = _superfluous(data, fault, choices)
        return "", LEAVE if key else "", key
    if example := example_of((*fault.place, "train") if fault.kind == "name" else fault.place, data, works):
        return "", "set", f"for example {example}"
    return ("", CORRECT, place) if fault.kind == "value" and left <= _others(data, fault, choices) else ("", "", "")


def _others(data: Mapping[str, Any], fault: _Fault, choices: Choices) -> set[str]:
    return {one.text for one in _checked(data, choices)[1]} - {fault.text}


def _superfluous(data: Mapping[str, Any], fault: _Fault, choices: Choices) -> str:
    """Return the last of the keys without each of which a mapping would be as it has to be; "" if there is none."""
    works = _works(_others(data, fault, choices), choices)
    for key in sorted(reversed(fault.given), key=lambda one: one == "phases"):
        if isinstance(key, str) and works(without(data, (*fault.place, key))):
            return ".".join((*fault.place, key))
    return ""


def _works(known: Collection[str], choices: Choices) -> Callable[[Any], bool]:
    """Return what tells whether a study has no problem but these."""
    return lambda changed: all(fault.text in known for fault in _checked(changed, choices)[1])


def _tuned_hint(data: Mapping[str, Any], fault: _Fault, choices: Choices) -> tuple[str, str]:
    """Return the same of a path that a strategy tunes: it begins in the strategy."""
    settings = data["strategies"][fault.tuned]
    settings = settings.model_dump(exclude_unset=True) if isinstance(settings, BaseModel) else settings
    tune, strategy = settings["tune"], {key: value for key, value in settings.items() if key != "tune"}

    def works(changed: Any) -> bool:
        try:
            shapes.StrategyConfig.model_validate(changed, context=choices)
        except ValidationError:
            return False
        return True

    count = len(fault.place)
    hint = key_meant(shapes.StrategyConfig, strategy, fault.place, fault.given, works) if fault.kind == "key" else None
    if hint is None or not hint.kept:
        return (hint.question if hint else ""), ""
    paths = {key: key.split(".") for key in tune}
    renamed = {
        ".".join([*hint.path, *path[count:]]) if tuple(path[:count]) == fault.place else key: tune[key]
        for key, path in paths.items()
    }
    return hint.question, f"--set {quoted(f'strategies.{fault.tuned}.tune={as_yaml(renamed)}')}"


def _name_of(path: Path) -> str:
    letters = (letter if letter.isascii() and letter.isalnum() or letter in "._-" else "-" for letter in path.stem)
    return "".join(letters).lstrip("._-") or "study"


def _with_paths(data: dict[str, Any], folder: Path, choices: Choices) -> dict[str, Any]:
    """Make the paths of a study absolute, since relative ones refer to where they were written."""

    def absolute(value: Any) -> Any:
        if not isinstance(value, str | Path) or (isinstance(value, str) and is_named(value, choices.sources)):
            return value
        try:
            return str(folder / Path(value).expanduser())
        except RuntimeError as error:
            raise UserError(
                f"{value} begins with a user that is not known",
                "a path",
                "write it in full, for example data: /home/NAME/photos",
            ) from error

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


def _override(data: dict[str, Any], override: str, choices: Choices) -> None:
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
        data |= put(data, path, value)
    except ValueError as error:
        works = _works([fault.text for fault in _checked(data, choices)[1]], choices)
        hint = set_meant(StudyConfig, data, path, value, works)
        raise UserError(
            f"--set {override!r}: {error}{hint.question if hint else ''}",
            "a path of keys in the study",
            hint.line if hint else "docs/study-file.md lists the keys; for example --set epochs=5",
        ) from error
    data |= _with_paths(data, Path.cwd(), choices)  # paths from the file are absolute already, and stay


def overridden(overrides: Sequence[str], choices: Choices) -> dict[str, Any]:
    """Return the keys that ``key.path=value`` texts set, and nothing else."""
    data: dict[str, Any] = {}
    for override in overrides:
        _override(data, override, choices)
    return data


def _did_you_mean(word: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(word, known, n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def _faults(error: ValidationError) -> list[_Fault]:
    """Turn pydantic's errors into lines ``key.path: what is wrong``."""
    found = []
    for problem in error.errors(include_url=False):
        given, kind, context = problem["input"], problem["type"], problem.get("ctx", {})
        *way, last = problem["loc"] or ("",)
        is_key = last not in _TAGS or kind == "extra_forbidden"
        place = [part for part in way if part not in _TAGS] + [last] * is_key
        is_name = kind.startswith("string_") and place[-1:] == ["[key]"]
        keys = tuple(map(str, place[:-1] if is_name else place))
        path = ".".join(keys)
        if kind == "extra_forbidden":
            found.append(_Fault(f"{path}: unknown key", "key", keys, given))
        elif kind == "missing":
            found.append(_Fault(f"{path}: missing", "missing", keys))
        elif kind == "value_error":
            lacks = len(keys) == 2 and keys[0] == "strategies" and str(context["error"]).startswith("train is missing")
            text = f"{path}: {context['error']}" if path else str(context["error"])
            found.append(_Fault(text, "name" if lacks else "value", keys if path else (), given))
        elif kind == "union_tag_invalid":
            found.append(_Fault(f"{path}: {_shown(given)} is not understood here", "value", keys, given))
        else:
            text = f"{path}: {'the name ' if is_name else ''}{_expected(problem)}, but is {_shown(given)}"
            found.append(_Fault(text, "" if is_name else "value", keys, given))
    return found


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
