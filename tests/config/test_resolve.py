"""Resolving a study: defaults, cells, candidates, presets."""

import datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.choices import candidates, parse_study, read_study, resolved
from unfreeze.config.load import load_yaml, preset_text, presets
from unfreeze.config.resolve import Cell, Strategy, cells, expected_epochs, put
from unfreeze.config.schema import StudyConfig
from unfreeze.errors import UserError

Any_ = dict[str, Any]
STUDIES = Path(__file__).parents[2] / "studies"


def study(strategies: Any_ | None = None, **changes: Any) -> StudyConfig:
    least = {"data": "x", "backbone": "vgg16", "regimes": {"full": {}}}
    return parse_study({**least, "strategies": strategies or {"s": {"train": "head"}}, **changes}, "study.yaml")


def only(asked: StudyConfig, name: str = "s") -> Strategy:
    return resolved(asked, asked.strategies[name])


def test_seeds_are_outermost_and_folds_next() -> None:
    asked = study({"a": {"train": "head"}, "b": {"train": "all"}}, regimes={"r": {}, "q": {}}, seeds=[3, 1])
    assert [cell.id for cell in cells(asked)] == [
        "a.r.s3", "a.q.s3", "b.r.s3", "b.q.s3", "a.r.s1", "a.q.s1", "b.r.s1", "b.q.s1",
    ]  # fmt: skip
    folded = study(split={"folds": 2}, seeds=2)
    assert cells(folded) == [Cell("s", "full", seed, fold) for seed in (0, 1) for fold in (0, 1)]
    assert cells(folded)[-1].id == "s.full.s1.f1"


def test_a_strategy_may_have_fewer_seeds() -> None:
    asked = study({"a": {"train": "head"}, "b": {"train": "all", "seeds": 2}}, seeds=[0, 3, 1])
    assert [cell.id for cell in cells(asked)] == ["a.full.s0", "b.full.s0", "a.full.s3", "a.full.s1", "b.full.s1"]


@pytest.mark.parametrize(
    ("strategy", "lr", "weight_decay"),
    [
        ({"train": "head"}, 3e-3, 0.05),
        ({"train": "head", "optimizer": "sgd"}, 1e-2, 0.0),
        ({"train": {"last": 2}}, 1e-4, 0.05),
        ({"train": "all", "optimizer": "adam"}, 1e-4, 0.0),
        ({"train": "all", "optimizer": "sgd"}, 1e-3, 0.0),
        ({"train": "all", "weights": "none"}, 1e-3, 0.05),
        ({"train": {"last": 0.5}, "reinit": True}, 1e-3, 0.05),
        ({"train": "all", "optimizer": {"lr": 0.5, "weight_decay": 0.0}}, 0.5, 0.0),
    ],
)
def test_learning_rate_and_weight_decay_follow_what_trains(strategy: Any_, lr: float, weight_decay: float) -> None:
    optimizer = only(study({"s": strategy})).phases[0].optimizer
    assert (optimizer.lr, optimizer.weight_decay) == (lr, weight_decay)


def test_a_strategy_takes_the_values_of_the_study_or_its_own() -> None:
    shared = {"image_size": 64, "resize": "pad", "batch_size": 8, "epochs": 3, "early_stopping": {"patience": 2}}
    own = {"image_size": 96, "resize": "crop", "batch_size": 4, "epochs": 5, "early_stopping": False}
    asked = study({"s": {"train": "head"}, "own": {"train": "head", **own}}, **shared)
    plain, mine = only(asked), only(asked, "own")
    assert (plain.image_size, plain.resize, plain.batch_size, plain.phases[0].epochs) == (64, "pad", 8, 3)
    assert plain.early_stopping and plain.early_stopping.patience == 2
    assert (mine.image_size, mine.resize, mine.batch_size, mine.phases[0].epochs) == (96, "crop", 4, 5)
    assert mine.early_stopping is None


def test_phases_take_the_epochs_of_the_strategy_and_add_up() -> None:
    asked = study({"s": {"epochs": 4, "phases": [{"train": "head", "epochs": 1}, {"train": "all"}]}})
    assert [phase.epochs for phase in only(asked).phases] == [1, 4]
    assert expected_epochs(only(asked)) == 5


@pytest.mark.parametrize(
    ("top", "own", "expected"),
    [
        ({}, {}, "pretrained"),
        ({"weights": "none"}, {}, "none"),
        ({"weights": "none"}, {"weights": "pretrained"}, "pretrained"),
        ({"weights": "none"}, {"backbone": "resnet18"}, "none"),
        ({"weights": "none"}, {"backbone": {"name": "resnet18", "weights": "pretrained"}}, "pretrained"),
        ({"backbone": {"name": "vgg16", "weights": "a.safetensors"}}, {}, "a.safetensors"),
        ({"backbone": {"name": "vgg16", "weights": "a.safetensors"}}, {"backbone": "resnet18"}, "pretrained"),
        ({"backbone": {"name": "vgg16", "weights": "a.safetensors"}}, {"weights": "none"}, "none"),
    ],
)
def test_precedence_of_weights(top: Any_, own: Any_, expected: str) -> None:
    assert only(study({"s": {"train": "all", **own}}, **top)).backbone.weights == expected


def test_without_tune_there_is_one_candidate_without_a_name() -> None:
    asked = study()
    assert candidates(asked, "s") == {"": only(asked)}


def test_candidates_are_the_product_of_the_tuned_values() -> None:
    phases = [{"train": "head", "epochs": 1}, {"train": "all", "epochs": 9, "optimizer": "sgd"}]
    tune = {"phases.1.optimizer.lr": [1e-4, 1e-3], "image_size": [64, 96]}
    found = candidates(study({"s": {"phases": phases, "tune": tune}}), "s")
    assert {name: (one.phases[1].optimizer.lr, one.image_size) for name, one in found.items()} == {
        "phases.1.optimizer.lr=0.0001,image_size=64": (1e-4, 64),
        "phases.1.optimizer.lr=0.0001,image_size=96": (1e-4, 96),
        "phases.1.optimizer.lr=0.001,image_size=64": (1e-3, 64),
        "phases.1.optimizer.lr=0.001,image_size=96": (1e-3, 96),
    }
    assert {one.phases[1].optimizer.name for one in found.values()} == {"sgd"}  # a word keeps its meaning below


@pytest.mark.parametrize("name", presets())
def test_every_preset_parses_and_resolves(name: str) -> None:
    asked = read_study(preset=name, values={"data": "photos"})
    assert len(cells(asked)) == len(asked.strategies) * len(asked.regimes) * len(asked.seeds)
    for strategy in asked.strategies:
        tuned = asked.strategies[strategy].tune.values()
        expected = 1
        for values in tuned:
            expected *= len(values)
        assert len(candidates(asked, strategy)) == expected


@pytest.mark.parametrize("path", sorted(STUDIES.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_study_that_ships_parses_and_resolves(path: Path) -> None:
    asked = read_study(path)
    for strategy in asked.strategies:
        assert candidates(asked, strategy)


def test_the_preset_article_is_the_article() -> None:
    asked = parse_study(load_yaml(preset_text("article"), "article"), "article")
    assert [cell.id for cell in cells(asked)] == [
        f"{strategy}.pattern_{number}.s0" for strategy in ("scratch", "head", "last_block") for number in (1, 2, 3)
    ]
    assert (asked.data, asked.split.val, asked.metric) == ("food101", "test", "accuracy")
    one, two, three = asked.regimes.values()
    assert (one.train_per_class, one.val_per_class, one.augment, one.examples_per_epoch) == (100, 25, "none", None)
    assert (two.train_per_class, two.val_per_class, two.augment) == (100, 25, "article")
    assert two.examples_per_epoch == 2000 * 32  # steps_per_epoch x batch
    assert (two.validation.augment, two.validation.examples) == ("article", 500 * 32)  # validation_steps x batch
    assert three.model_fields_set == set()  # all images, plainly

    models = {name: only(asked, name) for name in asked.strategies}
    for model in models.values():
        assert (model.backbone.name, model.image_size, model.resize, model.batch_size) == ("vgg16", 224, "squash", 32)
        assert model.early_stopping and model.early_stopping.monitor == "val_loss"
        assert len(model.phases) == 1
        schedule = model.phases[0].schedule
        assert (schedule.name, schedule.warmup, model.phases[0].label_smoothing) == ("constant", 0.0, 0.0)
    scratch, head, last_block = models.values()
    assert (scratch.backbone.weights, scratch.phases[0].train, scratch.head) == ("none", "all", "native")
    assert (scratch.phases[0].optimizer.name, scratch.phases[0].optimizer.lr) == ("adam", 1e-3)
    assert head.phases[0].train == "head"
    assert last_block.phases[0].train.model_dump() == {"last": 1}  # type: ignore[union-attr]
    assert not last_block.phases[0].reinit  # the code's version, not the text's
    for model in (head, last_block):
        assert model.backbone.weights == "pretrained"
        assert model.head.model_dump() == {  # type: ignore[union-attr]
            "pool": "flatten", "hidden": (2048, 1024), "dropout": (0.5, 0.0),
        }  # fmt: skip
        optimizer = model.phases[0].optimizer
        assert (optimizer.name, optimizer.lr, optimizer.momentum) == ("sgd", 1e-4, 0.9)
    assert {model.phases[0].optimizer.weight_decay for model in models.values()} == {0.0}


def test_put_returns_a_changed_copy() -> None:
    data = {"a": [{"b": 1}, {"b": 2}], "c": 3}
    assert put(data, ["a", "1", "b"], 9) == {"a": [{"b": 1}, {"b": 9}], "c": 3}
    assert put(data, ["d", "e"], 9) == {**data, "d": {"e": 9}}
    assert put({"optimizer": "sgd"}, ["optimizer", "lr"], 9) == {"optimizer": {"name": "sgd", "lr": 9}}
    assert put({"optimizer": "sgd"}, ["optimizer"], "adam") == {"optimizer": "adam"}
    assert data == {"a": [{"b": 1}, {"b": 2}], "c": 3}


@pytest.mark.parametrize(
    ("path", "text"),
    [
        (["a", "2"], "entry 2 does not exist in a list of 2; entries count from 0"),
        (["a", "-1"], "entry -1 does not exist in a list of 2; entries count from 0"),
        (["a", "x"], "entry x does not exist in a list of 2; entries count from 0"),
        (["a", "9" * 5000], f"entry {'9' * 5000} does not exist in a list of 2; entries count from 0"),
        (["c", "x"], "3 has no key 'x'"),
        (["train", "last"], "'head' has no key 'last'"),
    ],
)
def test_put_rejects_a_path_that_does_not_exist(path: list[str], text: str) -> None:
    with pytest.raises(ValueError) as caught:
        put({"a": [1, 2], "c": 3, "train": "head"}, path, 0)
    assert str(caught.value) == text


KEYS = st.sampled_from(["optimizer", "lr", "phases", "0", "1", "x"])
TREES = st.recursive(
    st.none() | st.integers() | st.sampled_from(["sgd", "head"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=12,
)


@settings(deadline=None)
@given(st.dictionaries(KEYS, TREES, max_size=4), st.lists(KEYS, min_size=1, max_size=4), st.integers())
def test_put_changes_only_the_value_at_the_path(data: Any_, path: list[str], value: int) -> None:
    try:
        changed = put(data, path, value)
    except ValueError:
        return
    found: Any = changed
    for key in path:
        found = found[int(key)] if isinstance(found, list) else found[key]
    assert found == value
    assert {key: entry for key, entry in changed.items() if key != path[0]} == {
        key: entry for key, entry in data.items() if key != path[0]
    }
    assert put(changed, path, value) == changed


def test_a_tuned_value_that_yaml_reads_as_a_date_is_refused_as_any_other() -> None:
    study = {"data": "x", "backbone": "vgg16", "regimes": {"full": {}}}
    strategies = {"head": {"train": "head", "tune": {"head.hidden": [[datetime.date(2000, 1, 1)]]}}}
    with pytest.raises(UserError) as caught:
        parse_study(study | {"strategies": strategies}, "study.yaml")
    assert str(caught.value) == (
        "study.yaml has 1 problem:\n"
        "  - strategies.head.tune: head.hidden.0: should be a whole number, but is 2000-01-01\n"
        "  expected: the keys and values that docs/study-file.md lists\n"
        "  fix:      change the lines named above; 'unfreeze init DATA' writes a study that works"
    )
