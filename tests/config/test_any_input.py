"""Any study file is valid or raises UserError, and never another exception."""

import contextlib
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.support.choices import candidates, parse_study, read_study
from unfreeze.config import schema as shapes
from unfreeze.config.identity import fingerprint, strategy_record, study_fingerprint
from unfreeze.config.load import load_yaml
from unfreeze.config.resolve import cells
from unfreeze.errors import UserError

MODELS = shapes.Settings.__subclasses__() + shapes.PhaseConfig.__subclasses__()
WORDS = sorted({field for model in MODELS for field in model.model_fields}) + [
    "all", "head", "linear", "native", "none", "pretrained", "test", "adam", "vgg16", "food101", "a.safetensors", "~",
    "hf:a/b",     "optimizer.lr", "phases.0.train", "train.last", "tune.x", "", ".", "x", "X",
]  # fmt: skip
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-3, 50)
    | st.sampled_from([10**20, 10**400, math.nan, math.inf, -math.inf])
    | st.floats()
    | st.sampled_from(WORDS)
    | st.text(max_size=5)
    | st.dates()
    | st.builds(lambda: 16**5000)  # as 0xfff... gives; Python does not write it out in digits
)
TREES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(WORDS) | st.text(max_size=3) | st.integers() | st.none(), inner, max_size=4)
    ),
    max_leaves=15,
)


LEAST = {"data": "x", "backbone": "vgg16", "strategies": {"s": {"train": "head"}}, "regimes": {"r": {}}}
COUNTS, SHARES = st.integers(1, 300), st.floats(0, 0.4)
RATES = st.floats(1e-9, 10, exclude_min=True)
OPTIMIZERS = st.sampled_from(["sgd", "adam", "adamw"]) | st.fixed_dictionaries(
    {}, optional={"name": st.just("sgd"), "lr": RATES, "momentum": SHARES, "weight_decay": SHARES, "layer_decay": RATES}
)
STOPPING = st.none() | st.just(False) | st.fixed_dictionaries({}, optional={"patience": COUNTS, "min_delta": SHARES})
TRAIN = st.sampled_from(["all", "head", {"last": 1}, {"last": 0.25}])
PHASE = {"epochs": COUNTS, "optimizer": OPTIMIZERS, "reinit": st.booleans(), "label_smoothing": SHARES}
SHARED = {"weights": st.sampled_from(["none", "pretrained", "a.safetensors"]), "early_stopping": STOPPING}
SHARED |= {"image_size": st.integers(8, 512), "batch_size": COUNTS, "epochs": COUNTS}
TUNES = st.fixed_dictionaries(
    {},
    optional={
        "optimizer.lr": st.lists(RATES, min_size=1, max_size=3),
        "train": st.lists(TRAIN, min_size=1, max_size=2),
    },
)
STRATEGIES = st.fixed_dictionaries({"train": TRAIN}, optional=PHASE | SHARED | {"tune": TUNES}) | st.fixed_dictionaries(
    {"phases": st.lists(st.fixed_dictionaries({"train": TRAIN}, optional=PHASE), min_size=1, max_size=3)},
    optional=SHARED,
)
REGIMES = st.fixed_dictionaries(
    {}, optional={"train_per_class": COUNTS, "val_per_class": COUNTS, "strict": st.booleans()}
)
STUDIES = st.fixed_dictionaries(
    {
        "data": st.sampled_from(["x", "~/x", "food101"]),
        "backbone": st.sampled_from(["vgg16", {"name": "vgg16"}]),
        "strategies": st.dictionaries(st.sampled_from("abc"), STRATEGIES, min_size=1, max_size=2),
        "regimes": st.dictionaries(st.sampled_from("abc"), REGIMES, min_size=1, max_size=2),
    },
    optional=SHARED | {"seeds": st.integers(1, 4) | st.lists(COUNTS, min_size=1, max_size=3, unique=True)},
)


def _places(data: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    entries = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    return [path, *(place for key, entry in entries for place in _places(entry, (*path, key)))]


def _replaced(data: Any, path: tuple[Any, ...], value: Any) -> Any:
    if not path:
        return value
    if isinstance(data, dict):
        return {**data, path[0]: _replaced(data[path[0]], path[1:], value)}
    return [_replaced(entry, path[1:], value) if index == path[0] else entry for index, entry in enumerate(data)]


def _parse(data: dict[Any, Any]) -> None:
    """Read it; where that succeeds, all that follows from the study alone must too."""
    try:
        study = read_study(values=data)
    except UserError as error:
        assert str(error)
        return
    assert len({cell.id.lower() for cell in cells(study)}) == len(cells(study))
    for name in study.strategies:
        for candidate in candidates(study, name).values():
            fingerprint(strategy_record(candidate))
    study_fingerprint(study)


def _read(**given: Any) -> None:
    """Read a study, which is one, or else the message says what is wrong."""
    try:
        found = read_study(**given)
    except UserError as error:
        assert str(error)
    else:
        assert isinstance(found, shapes.StudyConfig)


@settings(deadline=None, max_examples=60)
@given(st.dictionaries(st.sampled_from(WORDS) | st.text() | st.integers() | st.none(), TREES, max_size=6))
@example({"\ud800": 1})
@example({**LEAST, "seeds": 10**12})
def test_any_mapping_parses_or_is_refused(data: dict[Any, Any]) -> None:
    _parse({**LEAST, **data})
    with contextlib.suppress(UserError):
        parse_study(data, "study.yaml")


@settings(deadline=None, max_examples=60)
@given(STUDIES, TREES, st.sampled_from(WORDS), st.data())
def test_anything_near_a_study_parses_or_is_refused(
    study: dict[str, Any], tree: Any, word: str, data: st.DataObject
) -> None:
    _parse(study)
    *_, place = data.draw(st.permutations(_places(study)[1:]))
    _parse(_replaced(study, place, tree))
    _parse({**study, "strategies": {name: {**asked, word: tree} for name, asked in study["strategies"].items()}})


@settings(deadline=None, max_examples=60)
@given(st.text(alphabet=st.sampled_from("ab01-+.:e_xo, \n\t[]{}'\"&*!|>%@#?~\ufeff\x00\U0001f600")) | st.text())
def test_any_text_is_yaml_or_refused(text: str) -> None:
    with contextlib.suppress(UserError):
        assert isinstance(load_yaml(text, "study.yaml"), dict)


@settings(deadline=None)
@given(st.lists(st.sampled_from([*WORDS, "="]) | st.text(max_size=4), max_size=6).map(".".join))
def test_any_set_is_applied_or_refused(override: str) -> None:
    _read(values=LEAST, overrides=[override])


@settings(deadline=None, max_examples=50)
@given(st.binary(max_size=30))
def test_any_bytes_are_a_study_or_refused(tmp_path_factory: Any, content: bytes) -> None:
    path: Path = tmp_path_factory.getbasetemp() / "any.yaml"
    path.write_bytes(content)
    _read(path=path, preset="quick")


def test_data_that_holds_itself_is_refused() -> None:
    data = dict(LEAST)
    data["strategies"] = data
    with pytest.raises(UserError):
        parse_study(data, "study.yaml")


def _shuffled(data: Any, draw: Any) -> Any:
    if isinstance(data, dict):
        return {key: _shuffled(data[key], draw) for key in draw(st.permutations(list(data)))}
    return [_shuffled(entry, draw) for entry in data] if isinstance(data, list) else data


FINITE = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=15,
)


@settings(deadline=None)
@given(FINITE, st.data())
def test_the_order_of_keys_does_not_change_a_fingerprint(tree: Any, data: st.DataObject) -> None:
    assert fingerprint(_shuffled(tree, data.draw)) == fingerprint(tree)


def test_a_fingerprint_is_16_hex_digits_and_tells_settings_apart() -> None:
    study = parse_study(LEAST, "study.yaml")
    other = parse_study({**LEAST, "epochs": 11}, "study.yaml")
    found = study_fingerprint(study)
    assert len(found) == 16 and set(found) <= set("0123456789abcdef")
    assert found == study_fingerprint(parse_study(dict(reversed(LEAST.items())), "elsewhere.yaml"))
    assert len({found, study_fingerprint(other), fingerprint("a", 1), fingerprint(["a", 1])}) == 4
    assert fingerprint({"a": 1}) == "2696610e78752a9e"  # as it stands in study directories: never changes


def test_a_number_and_a_truth_value_that_mean_the_same_have_the_same_fingerprint() -> None:
    one = parse_study({**LEAST, "strategies": {"s": {"train": "head", "optimizer": {"name": "adamw", "lr": 1}}}}, "a")
    two = parse_study({**LEAST, "strategies": {"s": {"train": "head", "optimizer": {"lr": 1.0}}}}, "a")
    first, second = (fingerprint(strategy_record(candidates(study, "s")[""])) for study in (one, two))
    assert first == second
