"""Study files: all problems in one message, compared as a whole."""

import datetime
from pathlib import Path
from typing import Any

import pytest

from tests.support.choices import parse_study, read_study
from unfreeze.config.identity import regime_record
from unfreeze.config.load import load_yaml, preset_text, presets
from unfreeze.config.resolve import cells
from unfreeze.errors import UserError

INIT = "change the lines named above; 'unfreeze init DATA' writes a study that works"


def values(**changes: Any) -> dict[str, Any]:
    """A least study, with some of its values changed."""
    least = {"data": "photos", "backbone": "vgg16", "strategies": {"head": {"train": "head"}}, "regimes": {"full": {}}}
    return {**least, **changes}


def strategy(**settings: Any) -> dict[str, Any]:
    return values(strategies={"head": {"train": "head", **settings}})


def message(data: dict[str, Any]) -> str:
    with pytest.raises(UserError) as caught:
        parse_study(data, "study.yaml")
    return str(caught.value)


def problems(*lines: str, fix: str = INIT) -> str:
    count = "1 problem" if len(lines) == 1 else f"{len(lines)} problems"
    return (
        f"study.yaml has {count}:" + "".join(f"\n  - {line}" for line in lines)
        + f"\n  expected: the keys and values that docs/study-file.md lists\n  fix:      {fix}"
    )  # fmt: skip


def test_a_minimal_study_has_the_documented_defaults() -> None:
    study = parse_study(values(), "study.yaml")
    assert (study.metric, study.image_size, study.resize, study.seeds) == ("accuracy", 224, "crop", (0,))
    assert (study.split.test, study.split.val, study.batch_size, study.epochs) == (0.2, 0.15, 32, 10)
    assert study.early_stopping is None


@pytest.mark.parametrize(
    ("change", "line", "fix"),
    [
        ({"metrik": "auroc"}, "metrik: unknown key; did you mean 'metric'?", "in place of metrik: --set metric=auroc"),
        ({"zzz": 1}, "zzz: unknown key", "leave out zzz"),
        ({"folds": 5}, "folds: unknown key; did you mean 'split.folds'?", "in place of folds: --set split.folds=5"),
        ({"disk": "1GB"}, "disk: unknown key; did you mean 'budget.disk'?", "in place of disk: --set budget.disk=1GB"),
        (
            {"split": {"tset": 0.2}},
            "split.tset: unknown key; did you mean 'test'?",
            "in place of split.tset: --set split.test=0.2",
        ),
        (
            {"regimes": {"a": {"validation": {"augmnt": 1}}}},
            "regimes.a.validation.augmnt: unknown key; did you mean 'augment=trivial'?",
            "in place of regimes.a.validation.augmnt: --set regimes.a.validation.augment=trivial",
        ),
        (
            {"early_stopping": {"patiense": 3}},
            "early_stopping.patiense: unknown key; did you mean 'patience'?",
            "in place of early_stopping.patiense: --set early_stopping.patience=3",
        ),
        (
            {"backbone": {"name": "vgg16", "weight": "none"}},
            "backbone.weight: unknown key; did you mean 'weights=pretrained'?",
            "in place of backbone.weight: --set backbone.weights=pretrained",
        ),
        (
            {"budget": {"dsk": "1GB"}},
            "budget.dsk: unknown key; did you mean 'disk'?",
            "in place of budget.dsk: --set budget.disk=1GB",
        ),
        (
            {"metric": "f1"},
            (
                "metric: should be 'accuracy', 'balanced_accuracy', 'macro_f1', 'auroc' or 'log_loss', but "
                "is 'f1'; did you mean 'macro_f1'?"
            ),
            "--set metric=macro_f1",
        ),
        ({"epochs": "five"}, "epochs: should be a whole number, but is 'five'", "for example --set epochs=10"),
        ({"epochs": 1.5}, "epochs: should be a whole number, but is 1.5", "for example --set epochs=10"),
        ({"epochs": 0}, "epochs: should be greater than or equal to 1, but is 0", "for example --set epochs=10"),
        ({"epochs": True}, "epochs: should be a number, but is True", "for example --set epochs=10"),
        (
            {"epochs": 10**5000},
            "epochs: should be less than or equal to 1000000000, but is a number too long to show",
            "for example --set epochs=10",
        ),
        (
            {"image_size": 4},
            "image_size: should be greater than or equal to 8, but is 4",
            "for example --set image_size=224",
        ),
        ({"data": 2017}, "data: should be text (put quotes around it), but is 2017", INIT),
        ({"data": datetime.date(2017, 12, 1)}, "data: should be text (put quotes around it), but is 2017-12-01", INIT),
        ({"data": ["a"]}, "data: should be text, but is ['a']; did you mean 'a'?", "--set data=a"),
        (
            {"backbone": None},
            "backbone: should be a mapping of keys to values, but is None",
            "for example --set backbone=tf_efficientnet_lite0",
        ),
        (
            {"strategies": ["head"]},
            "strategies: should be a mapping of keys to values, but is ['head']",
            "for example --set 'strategies={head: {train: head}}'",
        ),
        (
            {"strategies": {}},
            "strategies: should have at least one entry, but is {}",
            "for example --set 'strategies={head: {train: head}}'",
        ),
        (
            {"strategies": {"head": None}},
            "strategies.head: should be a mapping of keys to values, but is None",
            "for example --set 'strategies.head={train: head}'",
        ),
        (
            {"strategies": {"a.b": {"train": "all"}}},
            "strategies: 'a.b' is not a valid name; use letters, digits, _ and -",
            INIT,
        ),
        (
            {"strategies": {"": {"train": "all"}}},
            "strategies: '' is not a valid name; use letters, digits, _ and -",
            INIT,
        ),
        ({"regimes": {"é": {}}}, "regimes: 'é' is not a valid name; use letters, digits, _ and -", INIT),
        ({"regimes": {"a": {}, "A": {}}}, "regimes: two of a, A differ only in capitals; rename one", INIT),
        ({"regimes": {10: {}}}, "regimes.10: the name should be text (put quotes around it), but is 10", INIT),
        (
            {"tests": {"a b": "x"}},
            "tests.a b: the name should match pattern '^[A-Za-z0-9][A-Za-z0-9_]*$', but is 'a b'",
            INIT,
        ),
        (
            {"seeds": 0},
            "seeds: 0 is not a number of seeds between 1 and 1000; list other seeds, for example [4, "
            "7]; did you mean 3?",
            "--set seeds=3",
        ),
        (
            {"seeds": 10**30},
            (
                "seeds: 1000000000000000000000000000000 is not a number of seeds between 1 and 1000; list"
                " other seeds, for example [4, 7]; did you mean 3?"
            ),
            "--set seeds=3",
        ),
        ({"seeds": []}, "seeds: should have at least one entry, but is []; did you mean 3?", "--set seeds=3"),
        ({"seeds": [-1]}, "seeds.0: should be greater than or equal to 0, but is -1", INIT),
        ({"seeds": [1, 1]}, "seeds: [1, 1] lists a seed twice", "leave out seeds"),
        (
            {"strategies": {"s": {"train": "head", "seeds": [3, 4]}}, "seeds": 2},
            "strategies.s.seeds: none of [3, 4] is a seed of the study, [0, 1]; leave it out, or list some of these",
            INIT,
        ),
        (
            {"split": {"val": "tset"}},
            "split.val: should be 'test', 'given' or 'auto', but is 'tset'; did you mean 'test'?",
            "--set split.val=test",
        ),
        ({"split": {"test": 1.0}}, "split.test: should be less than 1, but is 1.0", "for example --set split.test=0.2"),
        (
            {"split": {"test": 0.6, "val": 0.4}},
            "split: test 0.6 and val 0.4 leave nothing to train on",
            "leave out split.val",
        ),
        ({"split": {"val": {}}}, "split.val: {} is not understood here", "for example --set split.val=0.15"),
        (
            {"split": {"folds": 1}},
            "split.folds: should be greater than or equal to 2, but is 1; did you mean 5?",
            "--set split.folds=5",
        ),
        (
            {"early_stopping": True},
            (
                "early_stopping: should be false or a mapping of keys to values, but is True; did you mean "
                "{patience: 5}?"
            ),
            "--set 'early_stopping={patience: 5}'",
        ),
        (
            {"split": {"test": 0.8, "val": "auto"}},
            "split: test 0.8 and val auto leave nothing to train on",
            "leave out split.val",
        ),
        (
            {"weights": "none", "backbone": {"name": "vgg16", "weights": "pretrained"}},
            "weights and backbone.weights are both given; give one",
            "leave out weights",
        ),
        (
            {"regimes": {"a": {"train_per_class": 5, "train_fraction": 0.5}}},
            "regimes.a: train_per_class and train_fraction both set the number of training images; give one",
            "leave out regimes.a.train_fraction",
        ),
    ],
)
def test_a_wrong_value_of_the_study_is_named(change: dict[str, Any], line: str, fix: str) -> None:
    assert message(values(**change)) == problems(line, fix=fix)


@pytest.mark.parametrize(
    ("settings", "line", "fix"),
    [
        (
            {"trian": "all"},
            ".trian: unknown key; did you mean 'train'?",
            "in place of strategies.head.trian: --set strategies.head.train=all",
        ),
        (
            {"optimizer": {"lrr": 1e-3}},
            ".optimizer.lrr: unknown key; did you mean 'lr'?",
            "in place of strategies.head.optimizer.lrr: --set strategies.head.optimizer.lr=0.001",
        ),
        (
            {"optimizer": "adem"},
            ".optimizer.name: should be 'sgd', 'adam' or 'adamw', but is 'adem'; did you mean 'adam'?",
            "--set strategies.head.optimizer.name=adam",
        ),
        (
            {"optimizer": {"lr": -1.0}},
            ".optimizer.lr: should be greater than 0, but is -1.0",
            "for example --set strategies.head.optimizer.lr=0.001",
        ),
        (
            {"optimizer": {"lr": float("inf")}},
            ".optimizer.lr: should be a finite number, but is inf",
            "for example --set strategies.head.optimizer.lr=0.001",
        ),
        (
            {"optimizer": {"lr": "fast"}},
            ".optimizer.lr: should be a number, but is 'fast'",
            "for example --set strategies.head.optimizer.lr=0.001",
        ),
        (
            {"train": "hed"},
            ".train: should be 'all' or 'head', but is 'hed'; did you mean 'head'?",
            "--set strategies.head.train=head",
        ),
        (
            {"train": {"last": 0}},
            ".train.last: 0 is neither a number of stages (1, 2, ...) nor a share of them (between 0 and 1)",
            "for example --set strategies.head.train.last=1",
        ),
        (
            {"train": {"last": True}},
            ".train.last: True is neither a number of stages (1, 2, ...) nor a share of them (between 0 and 1)",
            "for example --set strategies.head.train.last=1",
        ),
        (
            {"train": None},
            ": train is missing; set it to all, head or {last: k}, or give phases",
            "for example --set strategies.head.train=head",
        ),
        (
            {"head": {"hiden": [8]}},
            ".head.hiden: unknown key; did you mean 'hidden'?",
            "in place of strategies.head.head.hiden: --set 'strategies.head.head.hidden=[8]'",
        ),
        ({"head": {"hidden": [0]}}, ".head.hidden.0: should be greater than or equal to 1, but is 0", INIT),
        (
            {"head": {"hidden": 8}},
            ".head.hidden: should be a list, but is 8; did you mean [8]?",
            "--set 'strategies.head.head.hidden=[8]'",
        ),
        (
            {"head": {"hidden": [8, 4], "dropout": [0.5]}},
            ".head: 2 hidden layers but 1 dropouts; give one per layer",
            "leave out strategies.head.head.dropout",
        ),
        (
            {"phases": [{"train": "head"}]},
            ": train beside phases; move into each phase",
            "leave out strategies.head.train",
        ),
        (
            {"reinit": "perhaps"},
            ".reinit: should be true or false, but is 'perhaps'",
            "correct or leave out strategies.head.reinit",
        ),
        (
            {"weights": "none"},
            ": weights: none with frozen stages would keep random weights; use train: all, or pretrained weights",
            "--set strategies.head.weights=pretrained",
        ),
        (
            {"tune": {"optimizer.lr": 1e-3}},
            ".tune.optimizer.lr: should be a list, but is 0.001; did you mean [0.001]?",
            "--set 'strategies.head.tune.optimizer.lr=[0.001]'",
        ),
        (
            {"tune": {"optimizer.lr": []}},
            ".tune.optimizer.lr: should have at least one entry, but is []",
            "correct or leave out strategies.head.tune.optimizer.lr",
        ),
        (
            {"tune": {"optimizer.lrr": [1e-3]}},
            ".tune: optimizer.lrr: unknown key; did you mean 'lr'?",
            "--set 'strategies.head.tune={optimizer.lr: [0.001]}'",
        ),
        (
            {"tune": {"optimzer.lr": [1e-3]}},
            ".tune: optimzer: unknown key; did you mean 'optimizer'?",
            "--set 'strategies.head.tune={optimizer.lr: [0.001]}'",
        ),
        (
            {"tune": {"train.last": [1]}},
            ": tune: train.last: 'head' has no key 'last'",
            "correct or leave out strategies.head.tune",
        ),
        ({"tune": {"phases.1.epochs": [1]}}, ".tune: phases: should be a list, but is {'1': {'epochs': 1}}", INIT),
        (
            {"tune": {"tune.epochs": [[1]]}},
            ": tune cannot tune itself; list all paths in one mapping",
            "leave out strategies.head.tune",
        ),
        (
            {"tune": {"weights": ["pretrained", "none"]}},
            ": weights: none with frozen stages would keep random weights; use train: all, or pretrained weights",
            "--set strategies.head.weights=pretrained",
        ),
    ],
)
def test_a_wrong_value_of_a_strategy_is_named(settings: dict[str, Any], line: str, fix: str) -> None:
    assert message(strategy(**settings)) == problems("strategies.head" + line, fix=fix)


@pytest.mark.parametrize(
    ("settings", "line", "fix"),
    [
        (
            {"phases": [{"train": "head", "epoks": 1}]},
            ".phases.0.epoks: unknown key; did you mean 'epochs'?",
            "in place of strategies.s.phases.0.epoks: --set strategies.s.phases.0.epochs=1",
        ),
        ({"phases": [{"train": "head"}, {"epochs": 3}]}, ": phases 1 lack train", INIT),
        ({"phases": ["head"]}, ".phases.0: should be a mapping of keys to values, but is 'head'", INIT),
        (
            {"phases": [{"train": "head"}], "tune": {"phases.1.epochs": [1]}},
            ": tune: phases.1.epochs: entry 1 does not exist in a list of 1; entries count from 0",
            "correct or leave out strategies.s.tune",
        ),
        (
            {"phases": [{"train": "head"}], "tune": {"phases.²": [1]}},
            ": tune: phases.²: entry ² does not exist in a list of 1; entries count from 0",
            "correct or leave out strategies.s.tune",
        ),
    ],
)
def test_a_wrong_phase_is_named(settings: dict[str, Any], line: str, fix: str) -> None:
    assert message(values(strategies={"s": settings})) == problems("strategies.s" + line, fix=fix)


def test_all_problems_of_the_shape_are_reported_at_once() -> None:
    data = values(metrik="auroc", epochs="five", strategies={"head": {"train": "head", "optimizer": {"lrr": 1}}})
    del data["data"]
    assert message(data) == problems(
        "data: missing",
        "strategies.head.optimizer.lrr: unknown key; did you mean 'lr'?",
        "epochs: should be a whole number, but is 'five'",
        "metrik: unknown key; did you mean 'metric'?",
        fix="change the other lines named above; in place of strategies.head.optimizer.lrr: "
        "--set strategies.head.optimizer.lr=1; for example --set epochs=10; "
        "in place of metrik: --set metric=auroc",
    )


def test_all_problems_of_the_strategies_are_reported_at_once() -> None:
    strategies = {"a": {"train": "head", "weights": "none"}, "b": {"train": "all", "tune": {"epoch": [1]}}}
    assert message(values(strategies=strategies)) == problems(
        "strategies.a: weights: none with frozen stages would keep random weights; "
        "use train: all, or pretrained weights",
        "strategies.b.tune: epoch: unknown key; did you mean 'epochs'?",
        fix="--set strategies.a.weights=pretrained; --set 'strategies.b.tune={epochs: [1]}'",
    )


@pytest.mark.parametrize(
    ("text", "first", "fix"),
    [
        (
            "data: photos\nepochs: [1, 2\n",
            "s.yaml, line 3, column 1: expected ',' or ']', but got '<stream end>'",
            "fix that line; spaces indent, never tabs",
        ),
        (
            "split:\n\ttest: 0.2\n",
            "s.yaml, line 2, column 1: found character '\\t' that cannot start any token",
            "fix that line; spaces indent, never tabs",
        ),
        (
            "epochs: 1\nseeds: 2\nepochs: 3\n",
            's.yaml, line 3, column 1: found duplicate key "epochs" with value "3" (original value: "1")',
            "fix that line; spaces indent, never tabs",
        ),
        (
            "a: !!python/object:os.system {}\n",
            "s.yaml, line 1, column 4: could not determine a constructor for the tag "
            "'tag:yaml.org,2002:python/object:os.system'",
            "fix that line; spaces indent, never tabs",
        ),
        (
            "a: \x00",
            "s.yaml: unacceptable character #x0000: special characters are not allowed",
            "write the file as UTF-8 YAML",
        ),
        ("a: 2020-13-45", "s.yaml: month must be in 1..12", "put quotes around text"),
        ("a: !!bool maybe", "s.yaml: 'maybe'", "put quotes around text"),
        ("a: " + "[" * 500, "s.yaml is nested too deeply", "close the brackets that are open"),
    ],
)
def test_broken_yaml_is_named_by_its_line(text: str, first: str, fix: str) -> None:
    with pytest.raises(UserError) as caught:
        load_yaml(text, "s.yaml")
    works = "'unfreeze init DATA' writes one that works"
    assert str(caught.value) == f"{first}\n  expected: YAML, as in studies/\n  fix:      {fix}; {works}"


@pytest.mark.parametrize(("text", "kind"), [("", "nothing"), ("- a", "a list"), ("head", "a single value")])
def test_yaml_that_is_not_a_mapping(text: str, kind: str) -> None:
    with pytest.raises(UserError) as caught:
        load_yaml(text, "s.yaml")
    assert str(caught.value) == (
        f"s.yaml contains {kind}, not keys with values\n  expected: a study: data, strategies, regimes, ...\n"
        "  fix:      start from 'unfreeze init DATA'"
    )


def test_words_and_numbers_are_those_of_yaml_1_2() -> None:
    assert load_yaml("a: 1e-3\nb: 3E-5\nc: no\nd: none\ne: null\nf: 010", "s") == {
        "a": 0.001, "b": 3e-5, "c": "no", "d": "none", "e": None, "f": 10,
    }  # fmt: skip


def test_a_byte_order_mark_is_ignored(tmp_path: Path) -> None:
    path = tmp_path / "study.yaml"
    path.write_text(
        "data: x\nbackbone: vgg16\nstrategies: {h: {train: head}}\nregimes: {f: {}}\n", encoding="utf-8-sig"
    )
    assert read_study(path).data == str(tmp_path / "x")


def test_a_file_that_is_not_utf_8(tmp_path: Path) -> None:
    path = tmp_path / "study.yaml"
    path.write_bytes("name: café".encode("latin-1"))
    with pytest.raises(UserError) as caught:
        read_study(path)
    assert str(caught.value) == (
        f"{path} is not UTF-8 text\n  expected: YAML in UTF-8\n  fix:      save the file as UTF-8; "
        "'unfreeze init DATA' writes one that works"
    )


@pytest.mark.parametrize("there", [True, False])
def test_a_path_that_is_not_a_file(tmp_path: Path, there: bool) -> None:
    path = tmp_path if there else tmp_path / "study.yaml"
    with pytest.raises(UserError) as caught:
        read_study(path)
    assert str(caught.value) == (
        f"{path} is not a file\n  expected: a study file (YAML)\n"
        "  fix:      correct the path, or write a study file with 'unfreeze init DATA'"
    )


def test_an_unknown_preset() -> None:
    with pytest.raises(UserError) as caught:
        preset_text("artcle")
    assert str(caught.value) == (
        "preset 'artcle' is unknown; did you mean 'article'?\n  expected: one of article, demo, quick, thorough\n"
        "  fix:      for example --preset quick"
    )
    assert presets() == ["article", "demo", "quick", "thorough"]


def test_a_sweep_expands_to_one_regime_per_value() -> None:
    swept = {"sweep": {"train_per_class": [20, 5]}, "augment": "flip_crop", "val_per_class": 3}
    study = parse_study(values(regimes={"first": {}, "few": swept, "last": {}}), "study.yaml")
    assert list(study.regimes) == ["first", "few_20", "few_5", "last"]
    by_hand = {"train_per_class": 5, "augment": "flip_crop", "val_per_class": 3}
    same = parse_study(values(regimes={"few_5": by_hand}), "study.yaml")
    assert study.regimes["few_5"] == same.regimes["few_5"]
    assert [cell.regime for cell in cells(study)] == list(study.regimes)
    assert "sweep" not in regime_record(study.regimes["few_5"])  # finished cells stay those of the same settings


@pytest.mark.parametrize(
    ("regimes", "line", "fix"),
    [
        (
            {"a": {"swep": {}}},
            "regimes.a.swep: unknown key; did you mean 'sweep={train_per_class: [10, 30, 100]}'?",
            "in place of regimes.a.swep: --set 'regimes.a.sweep={train_per_class: [10, 30, 100]}'",
        ),
        (
            {"a": {"sweep": {}}},
            "regimes.a.sweep.train_per_class: missing",
            "for example --set 'regimes.a.sweep.train_per_class=[10, 30, 100]'",
        ),
        (
            {"a": {"sweep": {"train_per_class": [5], "train_fracton": [0.5]}}},
            "regimes.a.sweep.train_fracton: unknown key; did you mean 'regimes.a.train_fraction'?",
            "leave out regimes.a.sweep.train_fracton",
        ),
        (
            {"a": {"sweep": {"train_per_class": []}}},
            "regimes.a.sweep.train_per_class: should have at least one entry, but is []",
            "for example --set 'regimes.a.sweep.train_per_class=[10, 30, 100]'",
        ),
        (
            {"a": {"sweep": {"train_per_class": 5}}},
            "regimes.a.sweep.train_per_class: should be a list, but is 5; did you mean [5]?",
            "--set 'regimes.a.sweep.train_per_class=[5]'",
        ),
        (
            {"a": {"sweep": {"train_per_class": [5, 0]}}},
            "regimes.a.sweep.train_per_class.1: should be greater than or equal to 1, but is 0",
            INIT,
        ),
        (
            {"a": {"sweep": {"train_per_class": [5, 10, 5]}}},
            "regimes.a.sweep: train_per_class lists 5 twice; list each value once",
            INIT,
        ),
        (
            {"a": {"sweep": {"train_per_class": [5]}, "train_fraction": 0.5}},
            "regimes.a: sweep and train_fraction both set the number of training images; give one",
            "leave out regimes.a.train_fraction",
        ),
        (
            {"a": {"sweep": {"train_per_class": [5]}}, "A_5": {}},
            "regimes: the sweep of a makes a_5, but A_5 already exists",
            INIT,
        ),
        (
            {"A_5": {}, "a": {"sweep": {"train_per_class": [5]}}},
            "regimes: the sweep of a makes a_5, but A_5 already exists",
            INIT,
        ),
    ],
)
def test_a_wrong_sweep_is_refused(regimes: dict[str, Any], line: str, fix: str) -> None:
    assert message(values(regimes=regimes)) == problems(line, fix=fix)
