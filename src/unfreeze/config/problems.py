"""Find everything that is wrong with a study, and report it in one message with hints and fixes."""

import datetime
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from unfreeze.config import schema
from unfreeze.config.choices import Choices
from unfreeze.config.hints import (
    Hint,
    KeyPath,
    as_yaml,
    example_setting,
    hint_for_key,
    hint_for_name,
    hint_for_value,
    quoted,
    why_unsupported,
    without,
)
from unfreeze.config.resolve import candidates, swept
from unfreeze.config.schema import StrategyConfig, StudyConfig
from unfreeze.errors import UserError

HINTED = 10
"""Number of problems for which hints are searched; each search validates many variants of the study."""

LEAVE_OUT, CORRECT = "leave out", "correct or leave out"

_TAGS = {schema.WORD, schema.NUMBER, schema.MAPPING}

_EXPECTED = {  # in place of pydantic's texts, which use Python's names
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


@dataclass(frozen=True)
class Problem:
    """Something that is wrong with a study.

    Attributes:
        text: ``key.path: what is wrong``.
        kind: "key": an unknown key; "value": an invalid value; "missing": a required key; "name": a strategy without
            ``train``; "weights": random weights that would stay frozen; "": anything that no hint can fix.
        place: path of the key. Of a tuned path it begins inside the strategy.
        given: the value there.
        tuned: name of the strategy whose tuned path it is about.
    """

    text: str
    kind: str = ""
    place: KeyPath = ()
    given: Any = None
    tuned: str = ""


@dataclass(frozen=True)
class _Advice:
    """How a problem's line continues, and how to fix it.

    Attributes:
        text: continues the line.
        fix: a setting for the command line, or with ``verb`` a key; "" if no fix is known.
        verb: LEAVE_OUT or CORRECT.
    """

    text: str = ""
    fix: str = ""
    verb: str = ""


def parse_study(data: Mapping[str, Any], origin: str, choices: Choices) -> StudyConfig:
    """Validate plain data and return it as a study, with its sweeps expanded.

    Args:
        data: a study as nested dicts, lists and values.
        origin: what messages call it.
        choices: names that a study may use.

    Raises:
        UserError: the study is invalid; lists every problem.
    """
    study, problems = find_problems(data, choices)
    if study is None or problems:
        raise _problems_error(origin, data, problems, choices)
    return study


def find_problems(data: Mapping[str, Any], choices: Choices) -> tuple[StudyConfig | None, list[Problem]]:
    """Return the study that plain data describes, or None if its shape is invalid, and its problems."""
    try:
        study = StudyConfig.model_validate(data, context=choices)
    except ValidationError as error:
        return None, _problems_of(error)
    found: list[Problem] = []
    try:
        study = swept(study)
    except ValueError as error:
        found.append(Problem(str(error)))
    for name in study.strategies:
        try:
            candidates(study, name, choices)
        except ValidationError as error:
            found += [
                replace(problem, text=f"strategies.{name}.tune: {problem.text}", tuned=name)
                for problem in _problems_of(error)
            ]
        except ValueError as error:
            text, place = f"strategies.{name}: {error}", ("strategies", name)
            if str(error).startswith("weights: none"):
                found.append(Problem(text, "weights", (*place, "weights"), "none"))
            else:
                found.append(Problem(text, "value", (*place, "tune"), {}))
    return study, found


def has_only(known: Sequence[str], choices: Choices) -> Callable[[Any], bool]:
    """Return a predicate: whether a study has no problems but those with the known texts."""
    return lambda changed: all(problem.text in known for problem in find_problems(changed, choices)[1])


def _problems_error(origin: str, data: Mapping[str, Any], problems: Sequence[Problem], choices: Choices) -> UserError:
    """Return one error for all problems of a study, with hints and fixes for the first of them."""
    advice = [_advice(data, problem, choices) for problem in problems[:HINTED]]
    advice += [_Advice()] * (len(problems) - len(advice))
    lines = [f"\n  - {problem.text}{advised.text}" for problem, advised in zip(problems, advice, strict=True)]
    fixes = []
    for verb in (LEAVE_OUT, CORRECT):
        keys = dict.fromkeys(advised.fix for advised in advice if advised.verb == verb)
        fixes += [f"{verb} {', '.join(keys)}"] if keys else []
    fixes += dict.fromkeys(advised.fix for advised in advice if advised.fix and not advised.verb)
    if any(not advised.fix for advised in advice):
        first = f"change the {'other ' if fixes else ''}lines named above"
        fixes = [first, *(fixes or ["'unfreeze init DATA' writes a study that works"])]
    return UserError(
        f"{origin} has {'1 problem' if len(lines) == 1 else f'{len(lines)} problems'}:" + "".join(lines),
        "the keys and values that docs/study-file.md lists",
        "; ".join(fixes),
    )


def _advice(data: Mapping[str, Any], problem: Problem, choices: Choices) -> _Advice:
    """Return advice on a problem; whatever it suggests was tried, and leaves no further problem."""
    if problem.tuned:
        return _advice_on_tuned(data, problem, choices)
    if not problem.kind:
        return _Advice()
    place = ".".join(problem.place)
    if problem.kind == "key" and (reason := why_unsupported(problem.place[-1])):
        return _Advice(f"; {reason}", place, LEAVE_OUT)
    remaining = [other.text for other in find_problems(without(data, problem.place), choices)[1]]
    works = has_only(remaining, choices)
    if hint := _hint(data, problem, choices, works):
        text = "" if problem.kind == "weights" else hint.question
        return _Advice(text, hint.setting) if hint.setting else _Advice(text, place, LEAVE_OUT)
    if problem.kind == "key":
        return _Advice("", place, LEAVE_OUT)
    if problem.kind == "value" and isinstance(problem.given, Mapping) and problem.given:
        key = _superfluous_key(data, problem, choices)
        return _Advice("", key, LEAVE_OUT) if key else _Advice()
    example_place = (*problem.place, "train") if problem.kind == "name" else problem.place
    if example := example_setting(example_place, data, works):
        return _Advice("", f"for example {example}")
    if problem.kind == "value" and set(remaining) <= set(_other_problems(data, problem, choices)):
        return _Advice("", place, CORRECT)
    return _Advice()


def _hint(data: Mapping[str, Any], problem: Problem, choices: Choices, works: Callable[[Any], bool]) -> Hint | None:
    """Return what an unknown key, an invalid value or a misspelt name probably means."""
    search: dict[str, Callable[..., Hint | None]] = {
        "key": hint_for_key,
        "name": hint_for_name,
        "value": partial(hint_for_value, choices),
        "weights": partial(hint_for_value, choices),
    }
    if problem.kind not in search:
        return None
    return search[problem.kind](StudyConfig, data, problem.place, problem.given, works)


def _other_problems(data: Mapping[str, Any], problem: Problem, choices: Choices) -> list[str]:
    return [other.text for other in find_problems(data, choices)[1] if other.text != problem.text]


def _superfluous_key(data: Mapping[str, Any], problem: Problem, choices: Choices) -> str:
    """Return the last key of an invalid mapping without which it is valid, "phases" last of all; "" if none is."""
    works = has_only(_other_problems(data, problem, choices), choices)
    for key in sorted(reversed(problem.given), key=lambda name: name == "phases"):
        if isinstance(key, str) and works(without(data, (*problem.place, key))):
            return ".".join((*problem.place, key))
    return ""


def _advice_on_tuned(data: Mapping[str, Any], problem: Problem, choices: Choices) -> _Advice:
    """Return advice on a path in a strategy's ``tune``."""
    settings = data["strategies"][problem.tuned]
    settings = settings.model_dump(exclude_unset=True) if isinstance(settings, BaseModel) else settings
    tune, strategy = settings["tune"], {key: value for key, value in settings.items() if key != "tune"}

    def works(changed: Any) -> bool:
        try:
            StrategyConfig.model_validate(changed, context=choices)
        except ValidationError:
            return False
        return True

    hint = (
        hint_for_key(StrategyConfig, strategy, problem.place, problem.given, works) if problem.kind == "key" else None
    )
    if hint is None or not hint.keeps_value:
        return _Advice(hint.question if hint else "")
    count = len(problem.place)
    renamed = {
        ".".join([*hint.path, *keys[count:]]) if tuple(keys[:count]) == problem.place else path: tune[path]
        for path, keys in ((path, path.split(".")) for path in tune)
    }
    return _Advice(hint.question, f"--set {quoted(f'strategies.{problem.tuned}.tune={as_yaml(renamed)}')}")


def _problems_of(error: ValidationError) -> list[Problem]:
    """Translate pydantic's errors."""
    return [_problem_of(details) for details in error.errors(include_url=False)]


def _problem_of(details: ErrorDetails) -> Problem:
    given, kind, context = details["input"], details["type"], details.get("ctx", {})
    *way, last = details["loc"] or ("",)
    is_key = last not in _TAGS or kind == "extra_forbidden"
    place = [part for part in way if part not in _TAGS] + [last] * is_key
    is_name = kind.startswith("string_") and place[-1:] == ["[key]"]
    keys = tuple(map(str, place[:-1] if is_name else place))
    path = ".".join(keys)
    if kind == "extra_forbidden":
        return Problem(f"{path}: unknown key", "key", keys, given)
    if kind == "missing":
        return Problem(f"{path}: missing", "missing", keys)
    if kind == "value_error":
        lacks_train = (
            len(keys) == 2 and keys[0] == "strategies" and str(context["error"]).startswith("train is missing")
        )
        text = f"{path}: {context['error']}" if path else str(context["error"])
        return Problem(text, "name" if lacks_train else "value", keys if path else (), given)
    if kind == "union_tag_invalid":
        return Problem(f"{path}: {shown(given)} is not understood here", "value", keys, given)
    text = f"{path}: {'the name ' if is_name else ''}{_expected(details)}, but is {shown(given)}"
    return Problem(text, "" if is_name else "value", keys, given)


def _expected(details: ErrorDetails) -> str:
    kind, given, context = details["type"], details["input"], details.get("ctx", {})
    if kind == "literal_error" and context["expected"] == "False":
        return "should be false or a mapping of keys to values"
    if kind == "string_type" and isinstance(given, bool | int | float | datetime.date):
        return "should be text (put quotes around it)"
    message = _EXPECTED.get(kind) or details["msg"].removeprefix("Input ").removeprefix("String ")
    return message[0].lower() + message[1:]


def shown(value: Any) -> str:
    """Return a value as messages show it, in at most 60 characters."""
    if isinstance(value, datetime.date):
        return str(value)
    try:
        text = repr(value)
    except ValueError:  # Python refuses to write out numbers of thousands of digits
        return "a number too long to show"
    return text if len(text) <= 60 else text[:57] + "..."
