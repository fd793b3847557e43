"""Whole sentences on a fixed table; the numbers are chosen to be checked in one's head."""

from typing import Any

import pandas as pd

from unfreeze.results.findings import findings, headline

REGIMES: dict[str, dict[str, Any]] = {
    "small": {"train_per_class": 10, "augment": "none", "examples_per_epoch": None},
    "turned": {"train_per_class": 10, "augment": "article", "examples_per_epoch": 2000},
    "full": {"train_per_class": None, "augment": "none", "examples_per_epoch": None},
}
# strategy, regime -> (validation, test, seconds per epoch) of each seed
SCORES: dict[tuple[str, str], list[tuple[float, float, float]]] = {
    ("scratch", "small"): [(0.30, 0.28, 9.0), (0.34, 0.32, 11.0)],
    ("scratch", "turned"): [(0.36, 0.35, 40.0), (0.34, 0.33, 40.0)],
    ("scratch", "full"): [(0.50, 0.48, 30.0), (0.54, 0.52, 30.0)],
    ("head", "small"): [(0.70, 0.69, 1.0), (0.72, 0.71, 1.0)],
    ("head", "turned"): [(0.74, 0.72, 4.0), (0.70, 0.70, 4.0)],
    ("head", "full"): [(0.80, 0.78, 3.0), (0.82, 0.80, 3.0)],
}


def tables(seeds: int = 2, failed: int | None = None) -> tuple[pd.DataFrame, pd.DataFrame]:
    rows, epochs = [], []
    for (strategy, regime), runs in SCORES.items():
        for seed, (val, test, seconds) in enumerate(runs[:seeds]):
            cell = {"cell": f"{strategy}.{regime}.s{seed}", "strategy": strategy, "regime": regime, "seed": seed}
            rows.append(
                {**cell, "fold": None, "status": "finished", "chosen": "", "n_train": 400 if regime == "full" else 60,
                 "best_epoch": 2, "val_metric": val, "test_metric": test, "seconds_per_epoch": seconds}
            )  # fmt: skip
            for epoch, gap in ((1, 0.0), (2, 0.15 if strategy == "head" else 0.05), (3, 0.4)):
                epochs.append(
                    {**cell, "candidate": "", "epoch": epoch, "train_accuracy": val + gap, "val_accuracy": val}
                )
    results = pd.DataFrame(rows)
    if failed is not None:
        results.loc[failed, ["val_metric", "test_metric", "seconds_per_epoch", "best_epoch"]] = None
        results.loc[failed, "status"] = "failed"
    return results, pd.DataFrame(epochs)


def test_headline_chooses_by_validation_and_reports_the_test() -> None:
    results, _ = tables()
    assert headline(results) == (
        "head with full has the best mean validation accuracy, 81.0 %, over 2 seeds (standard deviation 1.4 points); "
        "its test accuracy is 79.0 % (standard deviation 1.4 points)."
    )
    results.loc[results["strategy"] == "scratch", "test_metric"] = 0.99  # a test score never chooses
    assert headline(results).startswith("head with full has the best")


def test_headline_of_one_seed_says_that_it_cannot_tell() -> None:
    assert headline(tables(seeds=1)[0]) == (
        "head with full has the best validation accuracy, 80.0 %; its test accuracy is 78.0 %. "
        "This is 1 seed, too few to tell a difference from luck."
    )


def test_headline_names_ties_and_doubtful_test_sets() -> None:
    results, _ = tables(seeds=1)
    results.loc[results["regime"] == "small", "val_metric"] = 0.8
    assert headline(results, validates_on_test=True) == (
        "scratch with small has the best validation accuracy, 80.0 % (level with head with small and head with full); "
        "its test accuracy is 28.0 %, on images that also chose it. "
        "This is 1 seed, too few to tell a difference from luck."
    )
    results["test_metric"] = float("nan")
    assert headline(results.iloc[4:]) == (
        "head with turned has the best validation accuracy, 74.0 %; there is no test set to report on, and a number "
        "that was chosen for being the best flatters. This is 1 seed, too few to tell a difference from luck."
    ).replace("head with turned", "head with full").replace("74.0", "80.0")


def test_log_loss_is_best_when_it_is_low() -> None:
    results, _ = tables()
    assert headline(results, metric="log_loss") == (
        "scratch with small has the best mean validation log loss, 0.320, over 2 seeds (standard deviation 0.028); "
        "its test log loss is 0.300 (standard deviation 0.028)."
    )


def test_headline_of_nothing() -> None:
    results, history = tables()
    results["status"] = "missing"
    assert headline(results) == "No cell has finished yet, so there is nothing to compare."
    assert findings(results, history, regimes=REGIMES) == ["12 of 12 cells have not run and enter no mean."]


def test_findings_of_two_seeds() -> None:
    results, history = tables()
    assert findings(results, history, regimes=REGIMES) == [
        "With small, head has the best mean validation accuracy: 71.0 %, then scratch 32.0 %; it is ahead of scratch "
        "in 2 of 2 seeds; its test accuracy is 70.0 % (standard deviation 1.4 points); 2 seeds each.",
        "With turned, head has the best mean validation accuracy: 72.0 %, then scratch 35.0 %; it is ahead of scratch "
        "in 2 of 2 seeds; its test accuracy is 71.0 % (standard deviation 1.4 points); 2 seeds each.",
        "With full, head has the best mean validation accuracy: 81.0 %, then scratch 52.0 %; it is ahead of scratch "
        "in 2 of 2 seeds; its test accuracy is 79.0 % (standard deviation 1.4 points); 2 seeds each.",
        "Time per epoch, longest first, with small: scratch 10 s, head 1.0 s; with turned: scratch 40 s, head 4.0 s; "
        "with full: scratch 30 s, head 3.0 s; 2 seeds each. The order is the same in every regime.",
        "Training minus validation accuracy at the best epoch, in points (a large gap means overfitting): scratch +5.0 "
        "with small, +5.0 with turned, +5.0 with full; head +15.0 with small, +15.0 with turned, +15.0 with full; "
        "2 seeds each. Training accuracy is a running mean over the epoch, with dropout and augmentation on, so the "
        "true gap tends to be larger.",
        "From small to full (60 to 400 training images), test accuracy goes from 30.0 % to 50.0 % for scratch (better "
        "in 2 of 2 seeds) and from 70.0 % to 79.0 % for head (better in 2 of 2 seeds); 2 seeds each.",
        "With augmentation (turned against small), test accuracy changes by +4.0 points for scratch (better in 2 of 2 "
        "seeds) and by +1.0 points for head (better in 1 of 2 seeds); 2 seeds each. An epoch of turned draws 2,000 "
        "images, so part of a change may come from longer training.",
    ]


def test_findings_of_one_seed_and_a_failed_cell() -> None:
    results, history = tables(seeds=1, failed=1)  # scratch with turned
    luck = "1 seed each, too few to tell a difference from luck"
    assert findings(results, history, regimes=REGIMES) == [
        "With small, head has the best validation accuracy: 70.0 %, then scratch 30.0 %; its test accuracy is 69.0 %; "
        f"{luck}.",
        "With full, head has the best validation accuracy: 80.0 %, then scratch 50.0 %; its test accuracy is 78.0 %; "
        f"{luck}.",
        "With turned, head has a validation accuracy of 74.0 %; its test accuracy is 72.0 %; 1 seed.",
        "Time per epoch, longest first, with small: scratch 9.0 s, head 1.0 s; with full: scratch 30 s, head 3.0 s; "
        f"{luck}. The order is the same in every regime.",
        "Training minus validation accuracy at the best epoch, in points (a large gap means overfitting): scratch +5.0 "
        f"with small, +5.0 with full; head +15.0 with small, +15.0 with turned, +15.0 with full; {luck}. Training "
        "accuracy is a running mean over the epoch, with dropout and augmentation on, so the true gap tends to be "
        "larger.",
        "From small to full (60 to 400 training images), test accuracy goes from 28.0 % to 48.0 % for scratch and from "
        f"69.0 % to 78.0 % for head; {luck}.",
        "With augmentation (turned against small), test accuracy changes by +3.0 points for head; 1 seed, too few to "
        "tell a difference from luck. An epoch of turned draws 2,000 images, so part of a change may come from longer "
        "training.",
        "1 of 6 cells failed and enters no mean.",
        "Every number rests on one seed: a second seed could turn any of these orders round.",
    ]


def test_only_seeds_that_finished_in_both_regimes_are_compared() -> None:
    results, history = tables(failed=0)  # scratch with small, seed 0
    (sentence,) = [text for text in findings(results, history, regimes=REGIMES) if text.startswith("From small")]
    assert sentence == (
        "From small to full (60 to 400 training images), test accuracy goes from 32.0 % to 52.0 % for scratch and from "
        "70.0 % to 79.0 % for head (better in 2 of 2 seeds); 1 to 2 seeds each."
    )


def test_folds_are_runs() -> None:
    results, _ = tables()
    results["fold"] = 0
    assert "over 2 runs (standard deviation" in headline(results)
