"""Suggest what an unknown key or value may have meant, by meaning first and by spelling last.

A hint is given only where it was tried and fixes what it is about, so that it can be taken over as it stands.
"""

import difflib
import json
import re
import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel

from unfreeze.config.choices import Choices, ChosenFrom
from unfreeze.config.other_words import NO_SETTING, TARGETS, plain_word, usual_values, values_meant
from unfreeze.config.resolve import put
from unfreeze.config.schema import PhaseConfig, StrategyConfig

Place = tuple[str, ...]
"""A path of keys; entries of lists by their number."""

_NEAR = 0.7
"""Likeness of two words from which on one may be a slip for the other, where both stand at the same place."""

_VERY_NEAR = 0.85
"""The same for a word of which the place is not the same."""


@dataclass(frozen=True)
class Hint:
    """A setting that fixes a problem.

    Attributes:
        place: of what was not understood.
        path: of the setting that was probably meant.
        value: of it.
        kept: whether that is the value as given.
        others: further strategies or regimes that have this setting.
        tried: whether the value was found to work; else only the setting is told.
    """

    place: Place
    path: Place
    value: Any
    kept: bool
    others: tuple[str, ...] = ()
    tried: bool = True

    @property
    def question(self) -> str:
        """Ask whether this was meant, in words that continue a sentence."""
        if self.path == self.place:
            shown = f"'{self.value}'" if isinstance(self.value, str) else as_yaml(self.value)
            return f"; did you mean {shown}?"
        beside = self.path[:-1] == self.place[:-1]
        path = self.path[-1] if beside else ".".join(self.path)
        asked = f"; did you mean '{path}'?" if self.kept else f"; did you mean '{path}={as_yaml(self.value)}'?"
        kind = {"strategies": "strategy", "regimes": "regime"}.get(self.path[0], "")
        return asked + (f" (or of another {kind}: {', '.join(self.others)})" if self.others else "")

    @property
    def line(self) -> str:
        """The setting as the command line takes it, quoted for a shell; "" of one that was not tried."""
        if not self.tried:
            return ""
        setting = f"--set {quoted('.'.join(self.path) + '=' + as_yaml(self.value))}"
        return setting if self.path == self.place else f"in place of {'.'.join(self.place)}: {setting}"


def no_setting(word: str) -> str:
    """Say why a word of another library is no setting here; "" where nothing is known of it."""
    return NO_SETTING.get(plain_word(word), "")


def key_meant(
    model: type[BaseModel], data: Mapping[str, Any], place: Place, given: Any, works: Callable[[Any], bool]
) -> Hint | None:
    """Return the setting that an unknown key stands for: what works of what it may mean.

    Args:
        model: what the data should be.
        data: as given.
        place: of the unknown key.
        given: its value.
        works: tells whether such data, without the key and with the hint's setting, has no further problem.
    """
    rest, word = without(data, place), place[-1]
    known = sorted(_settings(model, rest), key=lambda path: (-_shared(path, place), len(path)))
    first: Place | None = None
    for found in _candidates(known, place):
        asked = [(target, path, value) for target, path in found for value in values_meant(target, word, given, data)]
        # Where a value is nothing that can be, the setting is named all the same, with a value that it may have.
        usual = [(target, path, value) for target, path in found for value in usual_values(target)]
        for target, path, value in [*asked, *usual]:
            if _fixes(rest, path, value, works):
                named = "*" in target and not _shared(path, place)
                others = dict.fromkeys(other[1] for other in known if named and _is(target, other))
                beside = tuple(name for name in others if name != path[1])
                return Hint(place, path, value, _same(value, given), beside)
        first = first or next((path for _, path in found), None)
    return Hint(place, first, given, True, tried=False) if first else None


def value_meant(
    choices: Choices,
    model: type[BaseModel],
    data: Mapping[str, Any],
    place: Place,
    given: Any,
    works: Callable[[Any], bool],
) -> Hint | None:
    """Return the value that was probably meant where one is not understood.

    Args:
        choices: names that there are.
        model, data, place, given, works: as of ``key_meant``.
    """
    path = place[:-1] if place[-1:] == ("name",) and place[-2:-1] in (("optimizer",), ("schedule",)) else place
    if isinstance(given, Mapping):  # what is wrong in it has a place of its own
        return None
    words = _words_of(model, place, choices)
    alike = [word for word in words if plain_word(word) == plain_word(given)] if isinstance(given, str) else []
    near = _alike(given, words, _NEAR) if isinstance(given, str) else []
    listed = [] if isinstance(given, list | tuple | dict) else [[given]]
    for value in [*alike, *values_meant(_general(path), path[-1], given, data), *near, *listed]:
        if not _same(value, given) and _fixes(data, place, value, works):
            return Hint(place, place, value, False)
    return None


def example_of(place: Place, data: Mapping[str, Any], works: Callable[[Any], bool]) -> str:
    """Return a setting that works at a place as the command line takes it; "" where none is known."""
    for value in usual_values(_general(place)):
        if place and _fixes(data, place, value, works):
            return Hint(place, place, value, False).line
    return ""


def name_meant(
    model: type[BaseModel], data: Mapping[str, Any], place: Place, given: Any, works: Callable[[Any], bool]
) -> Hint | None:
    """Return the setting of another strategy that was meant where a name is new and holds one setting only."""
    names = [str(name) for name in data[place[0]] if str(name) != place[1]]
    path, value = list[str](), given
    while isinstance(value, Mapping) and len(value) == 1:
        key, value = next(iter(value.items()))
        path.append(str(key))
    for near in _alike(place[1], names, _NEAR):
        meant = (place[0], near, *path)
        if path and _fixes(without(data, place), meant, value, works):
            return Hint(place, meant, value, True)
    return None


def set_meant(
    model: type[BaseModel], data: Mapping[str, Any], place: Place, given: Any, works: Callable[[Any], bool]
) -> Hint | None:
    """Return what was meant by a path that leads through something that has no such key; see ``key_meant``."""
    for cut in range(len(place) - 1, 0, -1):
        try:
            put(data, place[:cut], None)
        except ValueError:
            continue
        if _fixes(data, place[:cut], nested := put(None, place[cut:], given), works):
            return Hint(place, place[:cut], nested, False)
        for entry in range(9, -1, -1):  # a list: its last entry
            path = (*place[:cut], str(entry), *place[cut + 1 :])
            if place[cut].isdigit() and _fixes(data, path, given, works):
                return Hint(place, path, given, True)
        break
    return key_meant(model, data, place, given, works)


def _candidates(known: Sequence[Place], place: Place) -> Iterator[list[tuple[str, Place]]]:
    """Give the settings that an unknown key may stand for: by meaning or name, by spelling there, and anywhere."""
    word = place[-1]
    meant = [one for target in TARGETS.get(plain_word(word), ()) for one in _bound(target, known)]
    yield meant + [(_general(path), path) for path in known if path[-1] == word]
    beside = {path[-1]: path for path in known if path[:-1] == place[:-1]}
    yield [(_general(beside[near]), beside[near]) for near in _alike(word, beside, _NEAR)]
    anywhere = dict.fromkeys([*(plain_word(path[-1]) for path in known), *TARGETS])
    for near in _alike(plain_word(word), anywhere, _VERY_NEAR):
        meant = [one for target in TARGETS.get(near, ()) for one in _bound(target, known)]
        yield meant + [(_general(path), path) for path in known if plain_word(path[-1]) == near]


def _alike(word: str, words: Iterable[str], least: float) -> list[str]:
    return difflib.get_close_matches(word, list(words), n=1, cutoff=least)


def _bound(target: str, known: Sequence[Place]) -> list[tuple[str, Place]]:
    """Return the settings of this study that a general one stands for; a strategy that would be new is one."""
    found = [(target, path) for path in known if _is(target, path)]
    return found or ([] if "*" in target else [(target, tuple(target.split(".")))])


def _fixes(data: Any, path: Place, value: Any, works: Callable[[Any], bool]) -> bool:
    try:
        as_yaml(value)
        return works(put(data, path, value))
    except (ValueError, RecursionError):  # there is no such key where it leads, or it cannot be written as a line
        return False


def _same(one: Any, other: Any) -> bool:
    return type(one) is type(other) and one == other


def _shared(path: Place, place: Place) -> int:
    """Return how many keys two paths begin with alike, the last one not counted."""
    count = 0
    for one, other in zip(path[:-1], place[:-1], strict=False):
        if one != other:
            break
        count += 1
    return count


def _is(target: str, path: Place) -> bool:
    return target in (_general(path), _general(path, phases=True))


def _general(path: Place, phases: bool = False) -> str:
    """Return a setting's path with * for a strategy's or regime's name, and without its phase but where asked for."""
    if len(path) > 1 and path[0] in ("strategies", "regimes"):
        path = (path[0], "*", *path[2:])
    if not phases and len(path) > 4 and path[2] == "phases":
        path = (*path[:2], *path[4:])
    return ".".join(path)


def _settings(model: type[BaseModel], data: Any, path: Place = ()) -> Iterator[Place]:
    """Give the path of every setting that could be given, with the names that the data has."""
    given = data if isinstance(data, Mapping) else {}
    phased = model is StrategyConfig and given.get("phases")
    for name, field in model.model_fields.items():
        if phased and name in PhaseConfig.model_fields and name != "epochs":
            continue  # belongs into each phase
        yield (*path, name)
        yield from _within(field.annotation, given.get(name), (*path, name))


def _within(annotation: Any, data: Any, path: Place) -> Iterator[Place]:
    inner = model_in(annotation)
    if inner is not None:
        yield from _settings(inner, data, path)
        return
    each = next((model_in(one) for one in get_args(annotation) if one is not ... and model_in(one)), None)
    if each is None:
        return
    if get_origin(annotation) is dict and isinstance(data, Mapping):
        entries = [(name, entry) for name, entry in data.items() if isinstance(name, str)]
    elif get_origin(annotation) is tuple and isinstance(data, list | tuple):
        entries = [(str(number), entry) for number, entry in enumerate(data)]
    else:
        return
    for name, entry in entries:
        yield from _settings(each, entry, (*path, name))


def model_in(annotation: Any) -> type[BaseModel] | None:
    """Find the model among the ways to give a value; what is a dict or tuple of models has none."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    if get_origin(annotation) in (dict, tuple):
        return None
    return next(filter(None, map(model_in, getattr(annotation, "__args__", ()))), None)


def _words_of(model: type[BaseModel], place: Place, choices: Choices) -> list[str]:
    """Return the words that a setting takes."""
    current: Any = model
    marks: Sequence[Any] = ()
    for part in place:
        if get_origin(current) in (dict, tuple):
            current = next(argument for argument in reversed(get_args(current)) if argument is not ...)
        else:
            inner = model_in(current)
            field = inner.model_fields.get(part) if inner else None
            current, marks = (field.annotation, field.metadata) if field else (None, ())
    found = [*_named(marks, choices), *_words(current, choices)]
    return [word for word in found if isinstance(word, str)]


def _words(annotation: Any, choices: Choices) -> Iterator[Any]:
    if get_origin(annotation) is Literal:
        yield from get_args(annotation)
        return
    yield from _named(getattr(annotation, "__metadata__", ()), choices)
    for argument in getattr(annotation, "__args__", ()):
        yield from _words(argument, choices)


def _named(marks: Iterable[Any], choices: Choices) -> Iterator[str]:
    for mark in marks:
        if isinstance(mark, ChosenFrom):
            yield from mark.names(choices)


def without(data: Any, place: Sequence[str]) -> Any:
    """Return a copy of plain data without one of its values; as it is where there is none."""
    if not place:
        return data
    key, *rest = place
    if isinstance(data, Mapping):
        if rest:
            return {name: without(value, rest) if str(name) == key else value for name, value in data.items()}
        return {name: value for name, value in data.items() if str(name) != key}
    if isinstance(data, list | tuple):
        return [without(value, rest) if rest and str(n) == key else value for n, value in enumerate(data)]
    return data


def as_yaml(value: Any) -> str:
    """Return plain data as YAML on one line.

    Raises:
        ValueError: it is none that can be written so.
    """
    if isinstance(value, bool) or value is None:
        return json.dumps(value)
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, str):
        if len(value) > 200:
            raise ValueError("too long for a line")
        plain = re.fullmatch(r"[A-Za-z_/][A-Za-z0-9_./~-]*|\d+[smhd]|\d+[KMGT]?B", value)
        is_word = plain and value.lower() not in ("null", "true", "false")
        return value if is_word else json.dumps(value, ensure_ascii=False)
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{as_yaml(key)}: {as_yaml(one)}" for key, one in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(as_yaml(one) for one in value) + "]"
    raise ValueError(f"{type(value).__name__} is no plain data")


def quoted(setting: str) -> str:
    """Return a setting as a shell takes it for one word."""
    return shlex.quote(setting)
