"""Comparisons, scores and convergence, from predictions and from a study directory."""

import math
from dataclasses import replace

import numpy as np
import pytest

from tests.support.synthetic import FAILED, IMAGES, shared_results
from unfreeze.errors import UserError
from unfreeze.metrics import score
from unfreeze.statistics.comparisons import COLUMNS, compare, comparisons_table, recipe_pairs
from unfreeze.statistics.convergence import COLUMNS as CONVERGENCE
from unfreeze.statistics.convergence import convergence_table
from unfreeze.statistics.predictions import Prediction, Predictions, Recipe
from unfreeze.statistics.scores import scores_table
from unfreeze.statistics.study_results import StudyResults


@pytest.fixture(scope="module")
def three() -> StudyResults:
    return shared_results(seeds=3, failed=FAILED)


def predictions_of(
    right: dict[tuple[str, int, int | None], list[int]], folds: int = 1, units: list[str] | None = None
) -> Predictions:
    """Predictions in one regime from whether each image is right, by (strategy, seed, fold); folds share no image."""
    cells = []
    for (strategy, seed, fold), values in right.items():
        count = len(values)
        labels, ids = np.arange(count) % 2, np.array([f"i{(fold or 0) * count + n}" for n in range(count)])
        logits = np.zeros((count, 2), np.float32)
        logits[np.arange(count), np.where(values, labels, 1 - labels)] = 1
        own = np.array(units) if units else ids
        cells.append(Prediction(f"{strategy}.{seed}", strategy, "full", seed, fold, "test", ids, labels, logits, own))
    recipes = tuple(dict.fromkeys(one.recipe for one in cells))
    return Predictions("accuracy", ("x", "y"), folds, tuple(cells), recipes)


def test_a_study_compares_strategies_in_regimes_and_regimes_in_strategies(three: StudyResults) -> None:
    predictions, table = three.predictions, three.comparisons
    assert list(table.columns) == list(COLUMNS)
    assert table["kind"].tolist() == ["strategy"] * 9 + ["regime"] * 9
    assert set(table["images"]) == {IMAGES["test"]} and set(table["family"]) == {18}
    results = {(one.strategy, one.regime, one.seed): one for one in predictions.cells}
    row = table.iloc[0]
    assert (row["within"], row["a"], row["b"]) == ("small", "scratch", "head")
    means = [
        np.mean([score("accuracy", one.logits, one.labels) for (own, regime, _), one in results.items()
                 if (own, regime) == (strategy, "small")])
        for strategy in ("scratch", "head")
    ]  # fmt: skip
    assert row["difference"] == pytest.approx(means[0] - means[1])
    assert (table["low_simultaneous"] <= table["low"]).all() and (table["high"] <= table["high_simultaneous"]).all()
    full = table[(table["within"] == "full") & (table["a"] == "scratch")]
    assert set(full["seeds"]) == {2} and set(full["seeds_left_out"]) == {1}  # scratch.full.s1 failed
    undecided = table[table["verdict"] == "too little to tell"]
    assert len(undecided) and (undecided["helps"] != "").all()
    assert (table.loc[table["verdict"] != "too little to tell", "helps"] == "").all()


def test_compare_swaps_a_and_b_where_asked_for(three: StudyResults) -> None:
    table = three.comparisons
    straight, turned = compare(table, "scratch", "head"), compare(table, "head", "scratch")
    assert straight["within"].tolist() == turned["within"].tolist() == ["small", "small_augmented", "full"]
    assert (turned["difference"] == -straight["difference"]).all()
    assert (turned["high_simultaneous"] == -straight["low_simultaneous"]).all()
    assert (turned["low"] <= turned["difference"]).all() and set(turned["a"]) == {"head"}
    opposite = {"better": "worse", "worse": "better"}
    assert turned["verdict"].tolist() == [opposite.get(word, word) for word in straight["verdict"]]
    assert compare(table, "full", "small")["within"].tolist() == ["scratch", "head", "last_block"]
    with pytest.raises(UserError) as caught:
        compare(table, "head", "full")
    assert str(caught.value) == (
        "compare: 'head' and 'full' are not two of the study's strategies or two of its regimes\n"
        "  expected: two of the strategies scratch, head, last_block "
        "or two of the regimes small, small_augmented, full\n"
        "  fix:      name two of them"
    )


def test_one_seed_never_gives_a_verdict() -> None:
    table = shared_results(seeds=1, failed=None).comparisons
    assert set(table["verdict"]) == {"too little to tell"} and set(table["basis"]) == {"images only"}
    assert table["low"].notna().all() and table["low_simultaneous"].isna().all()
    assert set(table["helps"]) == {"at least two more seeds: one says nothing about others"}


def test_two_shares_never_differ_by_more_than_one() -> None:
    right = {("a", 0, None): [1, 1], ("a", 1, None): [0, 1], ("b", 0, None): [0, 0], ("b", 1, None): [0, 1]}
    row = comparisons_table(predictions_of(right)).iloc[0]
    assert (row["difference"], row["verdict"]) == (0.5, "too little to tell")
    assert (row["low_simultaneous"], row["high_simultaneous"]) == (-1, 1)
    assert row["low"] >= -1 and row["high"] <= 1


def test_a_study_that_has_not_run_compares_nothing(three: StudyResults) -> None:
    nothing = replace(three.predictions, cells=())
    table = comparisons_table(nothing)
    assert list(table.columns) == list(COLUMNS) and table.empty
    assert scores_table(nothing).empty


def test_a_run_is_the_union_of_its_folds_and_counts_when_all_have_finished() -> None:
    right = {("a", seed, fold): [1, 1, 1, fold] for seed in (0, 1) for fold in (0, 1)}
    right |= {("b", seed, fold): [1, 0, 1, 0] for seed in (0, 1) for fold in (0, 1) if (seed, fold) != (1, 1)}
    (row,) = comparisons_table(predictions_of(right, folds=2)).to_dict("records")
    assert (row["seeds"], row["seeds_left_out"], row["images"]) == (1, 1, 8)
    assert row["difference"] == pytest.approx(7 / 8 - 4 / 8)


def test_a_run_with_undefined_scores_is_left_out_and_counted() -> None:
    predictions = predictions_of({(name, seed, None): [1, 0, 1, seed] for name in "ab" for seed in (0, 1, 2)})
    predictions.cells[0].logits[0, 0] = math.nan
    (row,) = comparisons_table(predictions).to_dict("records")
    assert (row["seeds"], row["seeds_left_out"]) == (2, 1)
    scores = scores_table(predictions)
    assert scores.loc[scores["cell"] == "a.0", ["value", "low", "high"]].isna().all().all()


def test_images_of_one_group_count_as_one_unit() -> None:
    generator = np.random.default_rng(0)
    each = {(name, seed, None): generator.integers(0, 2, 40).tolist() for name in "ab" for seed in (0, 1, 2)}
    copied = {key: np.repeat(values, 4).tolist() for key, values in each.items()}
    alone = comparisons_table(predictions_of(each)).iloc[0]
    grouped = comparisons_table(predictions_of(copied, units=np.repeat([f"g{n}" for n in range(40)], 4).tolist())).iloc[
        0
    ]
    assert (grouped["images"], grouped["groups"]) == (160, 40)
    for column in ("difference", "low", "high_simultaneous", "df"):
        assert grouped[column] == pytest.approx(alone[column])


def test_pairs_are_in_plan_order() -> None:
    pairs = recipe_pairs([Recipe("s", "x"), Recipe("s", "y"), Recipe("t", "x")])
    assert [(one.kind, one.within, *one.names) for one in pairs] == [
        ("strategy", "x", "s", "t"), ("regime", "s", "x", "y"),
    ]  # fmt: skip
    assert recipe_pairs([]) == []


def test_scores_of_a_cell(three: StudyResults) -> None:
    predictions = three.predictions
    table = scores_table(predictions)
    own = table[table["cell"] == "head.small.s0"].set_index("metric")
    one = next(cell for cell in predictions.cells if cell.cell == "head.small.s0")
    assert own.index.tolist() == [
        "accuracy", "balanced_accuracy", "macro_f1", "auroc", "ece", "log_loss", "brier", "worst_class_recall",
    ]  # fmt: skip
    for metric in ("accuracy", "balanced_accuracy", "macro_f1", "auroc", "log_loss"):
        assert own.loc[metric, "value"] == pytest.approx(score(metric, one.logits, one.labels), abs=1e-6)
    assert ((own["low"] <= own["value"]) & (own["value"] <= own["high"]) & (own["low"] >= 0)).all()
    assert (own.drop(index=["log_loss", "brier"])["high"] <= 1).all()
    assert own.loc["worst_class_recall", "images"] == IMAGES["test"] / 6
    assert own.loc["worst_class_recall", "class"] in predictions.classes


def test_perfect_scores_still_have_an_interval() -> None:
    table = scores_table(predictions_of({("a", 0, None): [1] * 10})).set_index("metric")
    for metric in ("accuracy", "balanced_accuracy", "macro_f1", "auroc"):
        assert (
            table.loc[metric, "value"] == 1 and 0.6 < table.loc[metric, "low"] < 0.8 and table.loc[metric, "high"] == 1
        )


def test_one_image_has_an_interval_where_it_is_a_proportion() -> None:
    table = scores_table(predictions_of({("a", 0, None): [1]})).set_index("metric")
    assert table.loc["accuracy", ["low", "high"]].tolist() == pytest.approx([0.2065, 1], abs=1e-3)
    assert table.loc[["log_loss", "auroc", "ece"], "low"].isna().all()


def test_convergence_of_a_recipe(three: StudyResults) -> None:
    results, history, cells = three.table, three.history, three.plan["cells"]
    reuse = [{"cell": cell["cell"], "seconds": 2.0, "seconds_alone": 20.0 + 2 * cell["seed"]} for cell in cells]
    table = convergence_table(results, history, {"reuse": reuse}).set_index(["strategy", "regime"])
    assert list(table.reset_index().columns) == list(CONVERGENCE) and len(table) == 9
    row = table.loc[("head", "small")]
    own = [history[history["cell"] == f"head.small.s{seed}"] for seed in range(3)]
    near = [int((run["val_accuracy"] >= run["val_accuracy"].max() - 0.01).to_numpy().argmax()) + 1 for run in own]
    assert row["epochs_to_near_best"] == pytest.approx(np.mean(near))
    assert row["seconds_to_near_best"] == pytest.approx(
        np.mean([run["seconds"].iloc[:count].sum() for run, count in zip(own, near, strict=True)])
    )
    assert (row["runs"], row["seconds_shared"]) == (3, 8.5)
    took = results.set_index("cell")["seconds_total"]
    alone = [took[f"head.small.s{seed}"] * (10 + seed) for seed in range(3)]
    assert row["seconds_alone"] == pytest.approx(np.mean(alone))
    assert row["gap_at_best_low"] <= row["gap_at_best"] <= row["gap_at_best_high"]
