"""Suggest what an unknown key or an invalid value means: by synonyms first, by spelling last.

Every suggested setting has been tried in the study and works, so that it can be used as it is.
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
from unfreeze.config.resolve import put
from unfreeze.config.schema import PhaseConfig, StrategyConfig
from unfreeze.config.synonyms import SYNONYMS, UNSUPPORTED, normalized, typical_values, values_meant

KeyPath = tuple[str, ...]
"""Keys from the top of a study to a value; entries of lists by their number."""

_SIMILAR = 0.7
"""Similarity from which a word may be a misspelt key of the same mapping (difflib's ratio)."""

_VERY_SIMILAR = 0.85
"""The same for a key of another mapping."""


@dataclass(frozen=True)
class Hint:
    """A setting that a key or value probably means.

    Attributes:
        place: path of the key in question.
        path: path of the setting that is probably meant.
        value: value of that setting.
        keeps_value: whether it is the value that was given.
        others: further strategies or regimes that have this setting.
        works: whether the setting was tried and works; otherwise only its path is suggested.
    """

    place: KeyPath
    path: KeyPath
    value: Any
    keeps_value: bool
    others: tuple[str, ...] = ()
    works: bool = True

    @property
    def question(self) -> str:
        """``; did you mean ...?``, to continue a sentence."""
        if self.path == self.place:
            shown = f"'{self.value}'" if isinstance(self.value, str) else as_yaml(self.value)
            return f"; did you mean {shown}?"
        beside = self.path[:-1] == self.place[:-1]
        path = self.path[-1] if beside else ".".join(self.path)
        asked = f"; did you mean '{path}'?" if self.keeps_value else f"; did you mean '{path}={as_yaml(self.value)}'?"
        kind = {"strategies": "strategy", "regimes": "regime"}.get(self.path[0], "")
        return asked + (f" (or of another {kind}: {', '.join(self.others)})" if self.others else "")

    @property
    def setting(self) -> str:
        """The setting as an option of the command line, quoted for a shell; "" if it is not known to work."""
        if not self.works:
            return ""
        setting = f"--set {quoted('.'.join(self.path) + '=' + as_yaml(self.value))}"
        return setting if self.path == self.place else f"in place of {'.'.join(self.place)}: {setting}"


def why_unsupported(word: str) -> str:
    """Return why a setting of another library does not exist here; "" for an unknown word."""
    return UNSUPPORTED.get(normalized(word), "")


def hint_for_key(
    model: type[BaseModel], data: Mapping[str, Any], place: KeyPath, given: Any, works: Callable[[Any], bool]
) -> Hint | None:
    """Return the setting that an unknown key probably means.

    Args:
        model: schema of the data.
        data: a study, or a strategy.
        place: path of the unknown key.
        given: its value.
        works: returns whether changed data has no further problem.
    """
    rest, word = without(data, place), place[-1]
    known = sorted(_settings(model, rest), key=lambda path: (-_common(path, place), len(path)))
    first: KeyPath | None = None
    for found in _candidates(known, place):
        asked = [(target, path, value) for target, path in found for value in values_meant(target, word, given, data)]
        # Where the given value is impossible, suggest the setting with a typical value.
        typical = [(target, path, value) for target, path in found for value in typical_values(target)]
        for target, path, value in [*asked, *typical]:
            if _works_with(rest, path, value, works):
                named = "*" in target and not _common(path, place)
                others = dict.fromkeys(other[1] for other in known if named and _matches(target, other))
                beside = tuple(name for name in others if name != path[1])
                return Hint(place, path, value, _same(value, given), beside)
        first = first or next((path for _, path in found), None)
    return Hint(place, first, given, True, works=False) if first else None


def hint_for_value(
    choices: Choices,
    model: type[BaseModel],
    data: Mapping[str, Any],
    place: KeyPath,
    given: Any,
    works: Callable[[Any], bool],
) -> Hint | None:
    """Return the value that an invalid value probably means.

    Args:
        choices: names that a study may use.
        model, data, place, given, works: see ``hint_for_key``.
    """
    path = place[:-1] if place[-1:] == ("name",) and place[-2:-1] in (("optimizer",), ("schedule",)) else place
    if isinstance(given, Mapping):  # problems inside it have paths of their own
        return None
    words = _words_of(model, place, choices)
    same = [word for word in words if normalized(word) == normalized(given)] if isinstance(given, str) else []
    similar = _closest(given, words, _SIMILAR) if isinstance(given, str) else []
    listed = [] if isinstance(given, list | tuple | dict) else [[given]]
    for value in [*same, *values_meant(_pattern(path), path[-1], given, data), *similar, *listed]:
        if not _same(value, given) and _works_with(data, place, value, works):
            return Hint(place, place, value, False)
    return None


def example_setting(place: KeyPath, data: Mapping[str, Any], works: Callable[[Any], bool]) -> str:
    """Return an option of the command line that sets a typical value at a path; "" where none is known to work."""
    for value in typical_values(_pattern(place)):
        if place and _works_with(data, place, value, works):
            return Hint(place, place, value, False).setting
    return ""


def hint_for_name(
    model: type[BaseModel], data: Mapping[str, Any], place: KeyPath, given: Any, works: Callable[[Any], bool]
) -> Hint | None:
    """Return the setting of a strategy whose name is probably misspelt; the misspelt one holds a single setting."""
    names = [str(name) for name in data[place[0]] if str(name) != place[1]]
    path, value = list[str](), given
    while isinstance(value, Mapping) and len(value) == 1:
        key, value = next(iter(value.items()))
        path.append(str(key))
    for name in _closest(place[1], names, _SIMILAR):
        meant = (place[0], name, *path)
        if path and _works_with(without(data, place), meant, value, works):
            return Hint(place, meant, value, True)
    return None


def hint_for_override(
    model: type[BaseModel], data: Mapping[str, Any], place: KeyPath, given: Any, works: Callable[[Any], bool]
) -> Hint | None:
    """Return what an override whose path does not exist probably means; see ``hint_for_key``."""
    for cut in range(len(place) - 1, 0, -1):
        try:
            put(data, place[:cut], None)
        except ValueError:
            continue
        if _works_with(data, place[:cut], nested := put(None, place[cut:], given), works):
            return Hint(place, place[:cut], nested, False)
        for entry in range(9, -1, -1):  # of a list, the last entry that exists
            path = (*place[:cut], str(entry), *place[cut + 1 :])
            if place[cut].isdigit() and _works_with(data, path, given, works):
                return Hint(place, path, given, True)
        break
    return hint_for_key(model, data, place, given, works)


def _candidates(known: Sequence[KeyPath], place: KeyPath) -> Iterator[list[tuple[str, KeyPath]]]:
    """Yield what an unknown key may mean: by synonym or name, then by spelling in its mapping, then anywhere."""
    word = place[-1]
    meant = [setting for target in SYNONYMS.get(normalized(word), ()) for setting in _matching(target, known)]
    yield meant + [(_pattern(path), path) for path in known if path[-1] == word]
    beside = {path[-1]: path for path in known if path[:-1] == place[:-1]}
    yield [(_pattern(beside[key]), beside[key]) for key in _closest(word, beside, _SIMILAR)]
    anywhere = dict.fromkeys([*(normalized(path[-1]) for path in known), *SYNONYMS])
    for key in _closest(normalized(word), anywhere, _VERY_SIMILAR):
        meant = [setting for target in SYNONYMS.get(key, ()) for setting in _matching(target, known)]
        yield meant + [(_pattern(path), path) for path in known if normalized(path[-1]) == key]


def _closest(word: str, words: Iterable[str], least: float) -> list[str]:
    return difflib.get_close_matches(word, list(words), n=1, cutoff=least)


def _matching(target: str, known: Sequence[KeyPath]) -> list[tuple[str, KeyPath]]:
    """Return the settings of this study that match a pattern; a pattern without * may be a new strategy."""
    found = [(target, path) for path in known if _matches(target, path)]
    return found or ([] if "*" in target else [(target, tuple(target.split(".")))])


def _works_with(data: Any, path: KeyPath, value: Any, works: Callable[[Any], bool]) -> bool:
    try:
        as_yaml(value)
        return works(put(data, path, value))
    except (ValueError, RecursionError):  # the path does not exist, or the value has no YAML on one line
        return False


def _same(value: Any, other: Any) -> bool:
    return type(value) is type(other) and value == other


def _common(path: KeyPath, place: KeyPath) -> int:
    """Return the number of leading keys that two paths share, their last keys not counted."""
    count = 0
    for key, other in zip(path[:-1], place[:-1], strict=False):
        if key != other:
            break
        count += 1
    return count


def _matches(target: str, path: KeyPath) -> bool:
    return target in (_pattern(path), _pattern(path, phases=True))


def _pattern(path: KeyPath, phases: bool = False) -> str:
    """Return a path with * for the name of a strategy or regime, and without its phase unless ``phases``."""
    if len(path) > 1 and path[0] in ("strategies", "regimes"):
        path = (path[0], "*", *path[2:])
    if not phases and len(path) > 4 and path[2] == "phases":
        path = (*path[:2], *path[4:])
    return ".".join(path)


def _settings(model: type[BaseModel], data: Any, path: KeyPath = ()) -> Iterator[KeyPath]:
    """Yield the path of every possible setting of a study with its own names of strategies and regimes."""
    given = data if isinstance(data, Mapping) else {}
    phased = model is StrategyConfig and given.get("phases")
    for name, field in model.model_fields.items():
        if phased and name in PhaseConfig.model_fields and name != "epochs":
            continue  # belongs in each phase
        yield (*path, name)
        yield from _within(field.annotation, given.get(name), (*path, name))


def _within(annotation: Any, data: Any, path: KeyPath) -> Iterator[KeyPath]:
    inner = model_in(annotation)
    if inner is not None:
        yield from _settings(inner, data, path)
        return
    each = next((found for kind in get_args(annotation) if kind is not ... and (found := model_in(kind))), None)
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
    """Return the model in a union of types; None for a dict or tuple of models."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    if get_origin(annotation) in (dict, tuple):
        return None
    return next(filter(None, map(model_in, getattr(annotation, "__args__", ()))), None)


def _words_of(model: type[BaseModel], place: KeyPath, choices: Choices) -> list[str]:
    """Return the words that are valid values of a setting."""
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
    """Return a copy of plain data without the value at a path, if it exists."""
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
        ValueError: the data has other types, or text of more than 200 characters.
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
        return "{" + ", ".join(f"{as_yaml(key)}: {as_yaml(entry)}" for key, entry in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(as_yaml, value)) + "]"
    raise ValueError(f"{type(value).__name__} is not plain data")


def quoted(setting: str) -> str:
    """Return a setting quoted for a shell."""
    return shlex.quote(setting)
