"""The article's conclusions from a study's own numbers, and what is said where it cannot tell."""

from unfreeze.report.conclusions import _concluded, conclusions, equivalent_text
from unfreeze.statistics.comparisons import Comparison
from unfreeze.statistics.predictions import Recipe
from unfreeze.statistics.study_results import read_study_results
from unfreeze.storage.study_dir import StudyDir


def effect(verdict: str, strategy: str, helps: str = "") -> Comparison:
    recipes = Recipe(strategy, "full"), Recipe(strategy, "small")
    return Comparison(*recipes, "accuracy", 0.05, 0.02, 0.08, verdict, helps, 5, 200, "seeds and images")


def test_the_articles_topics_in_its_order(study: StudyDir) -> None:
    found = conclusions(read_study_results(study), Recipe("last_block", "full"))
    topics = ["More data", "Fine-tuning", "Depth", "Overfitting", "Time", "Augmentation"]
    assert [one.topic for one in found] == topics
    assert found[4].says == "Time per epoch with full: scratch 34 s > last_block 14 s > head 3.9 s."
    assert found[2].rests.startswith("last_block trains 13.4 M parameters, head 6.3 M; with full, test accuracy ")
    assert all("seed" in found[place].rests for place in (0, 1, 2, 5))


def test_verdicts_are_told_for_whom_they_hold() -> None:
    found = [effect("better", "head"), effect("too little to tell", "scratch", "about 9 seeds (now 5)")]
    made = _concluded("More data", "More data", found, ["head", "scratch"], "From a to b,")
    assert made.says == "More data is better for head; too little to tell for scratch."
    assert made.rests == (
        "From a to b, +5.0 points (+2.0 to +8.0) for head and +5.0 points (+2.0 to +8.0) for scratch; 5 seeds."
    )
    alone = _concluded("Depth", "Depth", found[1:], [""], "a against b:")
    assert alone.text == (
        "Depth: too little to tell. a against b: +5.0 points (+2.0 to +8.0); 5 seeds; "
        "to settle it: about 9 seeds (now 5)."
    )


def test_images_that_augmentation_is_worth() -> None:
    row = {"strategy": "head", "equivalent": 104.2, "equivalent_low": 85.0, "reading": ""}
    assert equivalent_text({**row, "equivalent_high": float("inf")}) == (
        "104 images a class without it for head (85 to any number of)"
    )
    assert equivalent_text({**row, "equivalent": float("nan"), "equivalent_high": 1.0}) == ""
