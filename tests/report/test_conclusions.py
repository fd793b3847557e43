"""The article's conclusions from a study's own numbers, and what they say where the study cannot decide."""

from dataclasses import replace

import pytest

from tests.support.synthetic import shared_results
from unfreeze.report.conclusions import Conclusion, concluded, conclusions, equivalent_text
from unfreeze.statistics.comparisons import Comparison
from unfreeze.statistics.predictions import Recipe

RECIPE = Recipe("last_block", "full")


@pytest.fixture(scope="module")
def found() -> dict[str, Conclusion]:
    return {one.topic: one for one in conclusions(shared_results(), RECIPE)}


def effect(verdict: str, strategy: str, helps: str = "") -> Comparison:
    recipes = Recipe(strategy, "full"), Recipe(strategy, "small")
    return Comparison(*recipes, "accuracy", 0.05, 0.02, 0.08, verdict, helps, 5, 200, "seeds and images")


def test_topics_are_those_of_the_article_in_its_order(found: dict[str, Conclusion]) -> None:
    assert list(found) == ["More data", "Fine-tuning", "Depth", "Overfitting", "Time", "Augmentation"]
    assert all("seed" in found[topic].evidence for topic in ("More data", "Fine-tuning", "Depth", "Augmentation"))


def test_each_sentence_names_what_it_compares(found: dict[str, Conclusion]) -> None:
    assert found["More data"].evidence.startswith(
        "From small to full (about 80 to about 257 training images per class), test accuracy changes by "
    )
    assert found["Fine-tuning"].claim.startswith("Fine-tuning instead of training from scratch")
    assert found["Fine-tuning"].evidence.startswith("With full, test accuracy of last_block minus that of scratch is ")
    assert " it comes within one point of its best validation accuracy after " in found["Fine-tuning"].evidence
    assert found["Depth"].evidence.startswith(
        "last_block trains 13.4 M parameters, head 6.3 M. With full, test accuracy of last_block minus that of head is "
    )
    assert found["Overfitting"].claim.startswith("All 9 recipes overfit by more than 2 points.")
    assert found["Time"].claim == "Time per epoch with full: scratch 34 s > last_block 14 s > head 3.9 s."
    assert found["Augmentation"].evidence.endswith(
        "What it is worth in images per class takes a learning curve through three sizes."
    )


def test_overfitting_gives_the_range_over_recipes(found: dict[str, Conclusion]) -> None:
    evidence = found["Overfitting"].evidence
    assert evidence.startswith("Training minus validation accuracy at the best epoch ranges from +")
    assert " points (scratch with full; 1 run) to +" in evidence and " over 2 runs)" in evidence
    one = replace(shared_results(), convergence=shared_results().convergence.iloc[:1])
    only = {conclusion.topic: conclusion for conclusion in conclusions(one, RECIPE)}["Overfitting"]
    assert only.claim == "The recipe overfits by more than 2 points."
    assert only.evidence.startswith("Training minus validation accuracy at the best epoch is +")


def test_what_a_study_cannot_decide_is_said() -> None:
    results = shared_results()
    table = results.table.copy()
    table.loc[table["cell"] != "head.full.s0", "status"] = "missing"
    plan = {**results.plan, "networks": {"head": results.plan["networks"]["head"]}}
    few = {one.topic: one.text for one in conclusions(replace(results, table=table, plan=plan), RECIPE)}
    assert few["More data"] == (
        "This study cannot tell whether more data is better. No two of its regimes differ only in the number of "
        "training images."
    )
    assert few["Depth"] == (
        "This study cannot tell how much of the network to train. That takes two strategies that start from the same "
        "pretrained weights."
    )
    assert concluded("Depth", "Training more", [], [], "").text == (
        "Training more cannot be judged: there are no test images, or the runs to compare have no seed in common."
    )


def test_verdicts_name_the_strategies_that_they_hold_for() -> None:
    found = [effect("better", "head"), effect("too little to tell", "scratch", "about 9 seeds (now 5)")]
    made = concluded("More data", "More data", found, ["head", "scratch"], "From a to b,")
    assert made.claim == "More data is better for head; too little data to tell for scratch."
    assert made.evidence == (
        "From a to b, +5.0 points (+2.0 to +8.0) for head and +5.0 points (+2.0 to +8.0) for scratch; 5 seeds."
    )
    alone = concluded("Depth", "Training more", found[1:], [""], "a minus b is")
    assert alone.text == (
        "Training more: too little data to tell. a minus b is +5.0 points (+2.0 to +8.0); 5 seeds; "
        "a verdict needs about 9 seeds (now 5)."
    )
    same = concluded("Depth", "Training more", [effect("no difference found", "head")], [""], "a minus b is")
    assert same.claim == "Training more: no difference found."


def test_images_that_augmentation_is_worth() -> None:
    row = {"strategy": "head", "equivalent": 104.2, "equivalent_low": 85.0, "equivalent_high": 120.0, "reading": ""}
    assert equivalent_text(row) == "104 for head (85 to 120)"
    beyond = {**row, "equivalent_high": float("inf"), "reading": "beyond the measured range"}
    assert equivalent_text(beyond) == "104 for head (85 to unlimited; beyond the measured range)"
    assert equivalent_text({**row, "equivalent": float("nan")}) == ""
