"""Names of other libraries get a hint with the setting that they mean, and every hint works."""

import re
import shlex
from typing import Any

import pytest

from tests.support.choices import parse_study, read_study
from unfreeze.config.hints import as_yaml
from unfreeze.config.load import load_yaml, preset_text
from unfreeze.config.resolve import put
from unfreeze.config.synonyms import SYNONYMS, UNSUPPORTED, typical_values
from unfreeze.errors import UserError

HEAD, FINE = "strategies.head.", "strategies.fine_tune.phases.0."


def refused(*overrides: str, **values: Any) -> UserError:
    with pytest.raises(UserError) as caught:
        read_study(values={"data": "x", **values}, preset="quick", overrides=overrides)
    return caught.value


def settings_in(fix: str) -> list[str]:
    """Return what a message offers to set, as a shell would hand it over."""
    words = shlex.split(fix.replace(";", " "))
    return [after for word, after in zip(words, words[1:], strict=False) if word == "--set"]


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("lr=1e-3", HEAD + "optimizer.lr=0.001"),
        ("learning_rate=1e-3", HEAD + "optimizer.lr=0.001"),
        ("learning-rate=1e-3", HEAD + "optimizer.lr=0.001"),
        ("learningRate=1e-3", HEAD + "optimizer.lr=0.001"),
        ("base_lr=0.01", HEAD + "optimizer.lr=0.01"),
        ("lr=fast", HEAD + "optimizer.lr=0.001"),  # the setting is named, with a value that it may have
        ("strategies.head.lr=1e-3", HEAD + "optimizer.lr=0.001"),
        ("strategies.fine_tune.lr=1e-3", FINE + "optimizer.lr=0.001"),
        ("strategies.fine_tune.phases.1.lr=1e-3", "strategies.fine_tune.phases.1.optimizer.lr=0.001"),
        ("freeze=true", HEAD + "train=head"),
        ("freeze=backbone", HEAD + "train=head"),
        ("frozen=false", HEAD + "train=all"),
        ("unfreeze=2", HEAD + "train={last: 2}"),
        ("trainable=true", HEAD + "train=all"),
        ("train=last", HEAD + "train={last: 1}"),
        ("train=last_2", HEAD + "train={last: 2}"),
        ("train=full", HEAD + "train=all"),
        ("strategies.head.train=last", HEAD + "train={last: 1}"),
        ("strategies.head.train=none", HEAD + "train=head"),
        ("strategies.head.train=3", HEAD + "train={last: 3}"),
        ("strategies.head.train.last=2", HEAD + "train={last: 2}"),
        ("class_weight=balanced", "regimes.small.balance=weights"),
        ("regimes.full.class_weight=balanced", "regimes.full.balance=weights"),
        ("sampler=WeightedRandomSampler", "regimes.small.balance=oversample"),
        ("max_epochs=5", "epochs=5"),
        ("num_epochs=5", "epochs=5"),
        ("regimes.small.n_epochs=5", "epochs=5"),
        ("img_size=96", "image_size=96"),
        ("input_size=[3, 96, 96]", "image_size=96"),
        ("image_shape=96x96", "image_size=96"),
        ("image_size=[96, 96]", "image_size=96"),
        ("model=resnet50", "backbone=resnet50"),
        ("arch=resnet50", "backbone=resnet50"),
        ("base_model=resnet50", "backbone=resnet50"),
        ("bs=16", "batch_size=16"),
        ("train_batch_size=16", "batch_size=16"),
        ("weight_decay=0.1", HEAD + "optimizer.weight_decay=0.1"),
        ("wd=0.1", HEAD + "optimizer.weight_decay=0.1"),
        ("momentum=0.8", HEAD + "optimizer.momentum=0.8"),
        ("dropout=0.5", HEAD + "head={hidden: [256], dropout: [0.5]}"),
        ("strategies.head.drop_rate=0.5", HEAD + "head={hidden: [256], dropout: [0.5]}"),
        ("label_smoothing=0.1", HEAD + "label_smoothing=0.1"),
        ("smoothing=0.1", HEAD + "label_smoothing=0.1"),
        ("augmentation=true", "regimes.small.augment=trivial"),
        ("data_augmentation=false", "regimes.small.augment=none"),
        ("aa=rand-m9-mstd0.5", "regimes.small.augment=rand"),
        ("regimes.full.augment=randaugment", "regimes.full.augment=rand"),
        ("regimes.full.augment=TrivialAugmentWide", "regimes.full.augment=trivial"),
        ("horizontal_flip=true", "regimes.small.augment=flip_crop"),
        ("validation_split=0.2", "split.val=0.2"),
        ("valid_pct=20", "split.val=0.2"),
        ("split.val_split=0.2", "split.val=0.2"),
        ("test_size=0.3", "split.test=0.3"),
        ("split=0.3", "split={test: 0.3}"),
        ("split=[0.7, 0.1, 0.2]", "split={val: 0.1, test: 0.2}"),
        ("k_folds=5", "split.folds=5"),
        ("n_splits=5", "split.folds=5"),
        ("seed=42", "seeds=[42]"),  # seeds=42 would be 42 of them
        ("random_state=0", "seeds=[0]"),
        ("n_seeds=4", "seeds=4"),
        ("patience=3", "early_stopping.patience=3"),
        ("early_stopping_patience=3", "early_stopping.patience=3"),
        ("early_stopping=true", "early_stopping={patience: 5}"),
        ("early_stopping=7", "early_stopping={patience: 7}"),
        ("monitor=val_acc", "early_stopping.monitor=val_accuracy"),
        ("opt=Adam", HEAD + "optimizer=adam"),
        ("optimizer=rmsprop", HEAD + "optimizer=adamw"),
        ("strategies.head.optimizer=AdamW", HEAD + "optimizer.name=adamw"),
        ("sched=cosine", HEAD + "schedule=cosine"),
        ("lr_scheduler=CosineAnnealingLR", HEAD + "schedule=cosine"),
        ("warmup_epochs=2", HEAD + "schedule.warmup=0.2"),
        ("freeze_epochs=1", FINE + "epochs=1"),
        ("amp=true", "precision=bfloat16"),
        ("mixed_precision=fp16", "precision=bfloat16"),
        ("precision=16-mixed", "precision=bfloat16"),
        ("precision=32", "precision=float32"),
        ("accelerator=gpu", "device=cuda"),
        ("gpus=0", "device=cpu"),
        ("metrics=[accuracy]", "metric=accuracy"),
        ("metric=f1", "metric=macro_f1"),
        ("metric=roc_auc", "metric=auroc"),
        ("pretrained=true", "weights=pretrained"),
        ("pretrained=false", "strategies.scratch={weights: none, train: all}"),
        ("resize=letterbox", "resize=pad"),
        ("time_limit=600", "budget.time=600s"),
        ("budget=5GB", "budget={disk: 5GB}"),
        ("steps_per_epoch=10", "regimes.small.examples_per_epoch=320"),
        ("train_per_class=10", "regimes.small.train_per_class=10"),  # no foreign word: a key of another place
        ("folds=5", "split.folds=5"),
        ("learing_rate=0.1", HEAD + "optimizer.lr=0.1"),  # a slip in a foreign word
        ("strategies.hed.epochs=5", HEAD + "epochs=5"),
    ],
)
def test_a_synonym_gets_a_hint_with_a_setting_that_works(given: str, meant: str) -> None:
    error = refused(given)
    assert settings_in(error.fix) == [meant]
    key, _, value = meant.partition("=")
    whole, last = f"'{key}", f"'{key.split('.')[-1]}"
    value = value if value[0] in "{[0123456789" else f"'{value}'"
    assert any(f"did you mean {words}" in error.given for words in (whole, last, value)), error.given
    read_study(values={"data": "x"}, preset="quick", overrides=[meant])


def test_the_whole_text_of_hints() -> None:
    assert str(refused("lr=1e-3", "train=last", "strategies.head.freeze=true", "num_workers=4", "zzz=1")) == (
        "the study has 5 problems:\n"
        "  - strategies.head.freeze: unknown key; did you mean 'train=head'?\n"
        "  - lr: unknown key; did you mean 'strategies.head.optimizer.lr'? "
        "(or of another strategy: last_quarter, fine_tune)\n"
        "  - train: unknown key; did you mean 'strategies.head.train={last: 1}'? "
        "(or of another strategy: last_quarter, fine_tune)\n"
        "  - num_workers: unknown key; the number of loader processes is chosen automatically and does not change "
        "results\n"
        "  - zzz: unknown key\n"
        "  expected: the keys and values that docs/study-file.md lists\n"
        "  fix:      leave out num_workers, zzz; in place of strategies.head.freeze: --set strategies.head.train=head; "
        "in place of lr: --set strategies.head.optimizer.lr=0.001; "
        "in place of train: --set 'strategies.head.train={last: 1}'"
    )


def test_hints_suggest_settings_only_where_they_are_valid() -> None:
    """Dropout has a place of its own where there are hidden layers, and train belongs into phases where these are."""
    strategies = {"mlp": {"train": "head", "head": {"hidden": [8, 4]}}}
    assert settings_in(refused("dropout=0.5", strategies=strategies).fix) == ["strategies.mlp.head.dropout=[0.5, 0.5]"]
    strategies = {"two": {"phases": [{"train": "head"}, {"train": "all"}]}}
    assert settings_in(refused("freeze=true", strategies=strategies).fix) == ["strategies.two.phases.0.train=head"]


@pytest.mark.parametrize(
    ("word", "never"),
    [("lr", "tests"), ("freeze", "resize"), ("model", "mode"), ("loss", "folds"), ("size", "resize"), ("fold", "hold")],
)
def test_similar_spelling_with_another_meaning_gets_no_hint(word: str, never: str) -> None:
    assert f"'{never}" not in refused(f"{word}=1").given


def test_a_word_without_a_setting_gets_the_reason() -> None:
    assert "unfreeze run STUDY --out DIR" in refused("output_dir=x").given
    assert refused("num_classes=3").fix == "leave out num_classes"


def test_the_key_engine_gets_the_reason_that_engines_are_chosen() -> None:
    assert str(refused("engine=ncnn")) == (
        "the study has 1 problem:\n"
        "  - engine: unknown key; frozen stages run on OpenVINO where a short check finds that it works, otherwise on "
        "PyTorch; ncnn and Winograd convolutions are no longer supported\n"
        "  expected: the keys and values that docs/study-file.md lists\n"
        "  fix:      leave out engine"
    )


def test_no_word_is_both_a_synonym_and_unsupported() -> None:
    assert not SYNONYMS.keys() & UNSUPPORTED.keys()


def test_every_synonym_leads_to_a_setting_that_works() -> None:
    """With a value that is none: the hint then has one that the setting may have."""
    study = load_yaml(preset_text("quick"), "quick") | {"data": "x"}
    for word, targets in SYNONYMS.items():
        try:
            parse_study(study | {word: 0.5j}, "x")
        except UserError as error:
            offered = settings_in(error.fix)
            assert offered or not any(typical_values(target) for target in targets), word
            for key, _, value in (setting.partition("=") for setting in offered):
                parse_study(put(study, key.split("."), load_yaml(f"value: {value}", word)["value"]), word)


@pytest.mark.parametrize(
    "value",
    [None, True, 3, 0.001, 1e-05, "adam", "5GB", "600s", "1", "1e3", "null", "~", "a b", "", "{x}", "é", "no", "-x",
     {"last": 1}, {"a.b": [1, "x"], "c": {}}, [3, [4]], "2020-01-01", "0x10", "a: b", "#", "12:30:00"],
)  # fmt: skip
def test_a_value_on_one_line_is_read_back(value: Any) -> None:
    assert load_yaml(f"value: {as_yaml(value)}", "a line") == {"value": value}
    assert not re.search(r"\n", as_yaml(value))
