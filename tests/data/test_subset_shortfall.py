"""The data check reports classes that are too small for a study."""

from tests.support.pictures import catalog
from unfreeze.config.schema import RegimeConfig, SplitConfig
from unfreeze.data.catalog import Catalog
from unfreeze.data.subset import shortfalls


def images(**counts: int) -> Catalog:
    return catalog([{"sha256": f"{label}{n}", "label": label} for label, count in counts.items() for n in range(count)])


def told(catalogued: Catalog, split: SplitConfig, **regimes: RegimeConfig) -> list[tuple[str, str]]:
    found = shortfalls(catalogued, split, regimes)
    assert {one.kind for one in found} <= {"small_class"}
    return [(one.severity, one.note) for one in found]


def test_enough_is_no_finding():
    assert told(images(a=60, b=60), SplitConfig(), small=RegimeConfig(train_per_class=20), full=RegimeConfig()) == []


def test_a_shortfall_is_reported_once_for_all_regimes():
    few = {"train_per_class": 20, "val_per_class": 1}
    regimes = {"small": RegimeConfig(**few), "augmented": RegimeConfig(**few, augment="trivial")}
    strict = RegimeConfig(**few, strict=True)
    ((severity, note), (worse, reason)) = told(images(a=60, b=9), SplitConfig(), **regimes, hard=strict)
    assert severity == "warning"
    assert note.startswith("regimes small and augmented: class b gives ")
    assert note.endswith(" of 20 training images")
    assert worse == "error"
    assert reason.startswith("regime hard: too few training images for a strict regime: b ")


def test_a_class_too_small_for_the_split_is_one_error():
    assert told(images(a=60, b=2), SplitConfig(), small=RegimeConfig(), full=RegimeConfig()) == [
        (
            "error",
            "too few images in 1 of 2 classes: b has 2 "
            "(copies of one picture, and the images of one group, count once)",
        )
    ]


def test_the_first_of_the_folds_is_drawn():
    assert told(images(a=60, b=60), SplitConfig(folds=3), full=RegimeConfig(train_per_class=10)) == []
