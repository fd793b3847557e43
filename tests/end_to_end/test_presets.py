"""Every shipped preset runs whole: its strategies, regimes and heads, on the small world instead of its own."""

from pathlib import Path

import pytest

from tests.support.worlds import write_photographs, write_weights
from unfreeze import Study
from unfreeze.config.load import presets

SMALL = {
    "quick": ["strategies.fine_tune.phases.0.epochs=1", "strategies.fine_tune.phases.1.epochs=1"],
    "thorough": [
        "strategies.fine_tune.phases.0.epochs=1",
        "strategies.fine_tune.phases.1.epochs=1",
        "strategies.head.tune={optimizer.lr: [1e-3, 1e-2]}",
        "strategies.last_quarter.tune={}",
        "strategies.last_half.tune={}",
        "strategies.fine_tune.tune={phases.1.optimizer.lr: [1e-4]}",
        "regimes={images_10: {train_per_class: 10, val_per_class: 10}, full_augmented: {augment: trivial}}",
    ],
    "article": ["regimes.pattern_2.examples_per_epoch=40", "regimes.pattern_2.validation.examples=20"],
    "demo": ["strategies.fine_tune.phases.0.epochs=1", "strategies.fine_tune.phases.1.epochs=1"],
}


@pytest.mark.parametrize("preset", presets())
def test_a_shipped_preset_runs_to_its_end(preset: str, tmp_path: Path) -> None:
    values = {
        "data": str(write_photographs(tmp_path / "photographs")),
        "backbone": {"name": "test_resnet", "weights": str(write_weights(tmp_path / "weights.safetensors"))},
        "image_size": 32,
        "seeds": 1,
        "epochs": 1,
    }
    study = Study.from_yaml(preset=preset, values=values, overrides=SMALL[preset])
    results = study.run(tmp_path / "out", workers=0)
    assert results.failed == ()
    assert len(results.table) == len(study.config.strategies) * len(study.config.regimes)
    assert set(results.table["status"]) == {"finished"}
    assert results.table["test_accuracy"].between(0, 1).all()
    assert (tmp_path / "out" / "report.html").stat().st_size > 1_000_000


def test_the_article_study_is_the_article_preset() -> None:
    file = Path(__file__).parents[2] / "studies" / "article.yaml"
    assert Study.from_yaml(file).config == Study.from_yaml(preset="article").config
