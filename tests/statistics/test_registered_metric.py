"""A metric that is registered at run time is scored, compared, ranked by and printed like those of the package."""

import math
from pathlib import Path

import numpy as np
import pytest

from tests.support.synthetic import write_study
from unfreeze.metrics import METRICS, Labels, Logits, Metric, Values, is_better, metric_text, score
from unfreeze.report.answer import answer
from unfreeze.report.answer_text import facts
from unfreeze.report.page import render_report
from unfreeze.statistics.intervals import BETTER, NO_DIFFERENCE, WORSE, proportion_interval, verdict
from unfreeze.statistics.scores import scores_table
from unfreeze.statistics.study_results import read_study_results


def in_top_two(logits: Logits, labels: Labels) -> Values:
    return (np.argsort(-logits, axis=1)[:, :2] == labels[:, None]).any(axis=1).astype(np.float64)


def regret(logits: Logits, labels: Labels) -> Values:
    return (logits.max(axis=1) - logits[np.arange(len(labels)), labels]).astype(np.float64)


TOP_TWO = Metric("top2", "top-2 accuracy", in_top_two, percent=True, proportion=True)
REGRET = Metric("regret", "regret", regret, higher_is_better=False, bounds=(0.0, math.inf), margin=0.1)


@pytest.mark.parametrize("metric", [TOP_TWO, REGRET], ids=lambda metric: metric.name)
def test_a_study_selects_and_reports_by_it(metric: Metric, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(METRICS.data, metric.name, metric)
    results = read_study_results(write_study(tmp_path, seeds=1, failed=None, metric=metric.name))

    cell = results.predictions.cells[0]
    values = metric.per_image(cell.logits, cell.labels)
    assert score(metric.name, cell.logits, cell.labels) == values.mean()
    scores = scores_table(results.predictions)
    row = scores[(scores["cell"] == cell.cell) & (scores["metric"] == metric.name)].iloc[0]
    assert row["value"] == values.mean() and row["low"] < values.mean() < row["high"]
    if metric.proportion:
        assert (row["low"], row["high"]) == proportion_interval(values, cell.units)

    assert set(results.comparisons["metric"]) == {metric.name}
    assert verdict(metric.name, 0.5, 0.2) == (BETTER if metric.higher_is_better else WORSE)
    assert verdict(metric.name, 0.01, metric.margin) == NO_DIFFERENCE

    found = answer(results)
    assert found.ranking is not None and found.test_score is not None
    means = [found.ranking.value_of(place) for place in found.ranking.choice.order]
    assert means == sorted(means, reverse=metric.higher_is_better)
    assert facts(found)[1].label == f"Test {metric.label}"
    assert facts(found)[1].value == metric_text(metric.name, found.test_score.value)
    if metric is REGRET:
        assert f"Test {metric.label} with its 95 % interval" in render_report(results)


def test_it_has_a_direction(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(METRICS.data, "regret", REGRET)
    assert is_better("regret", 0.1, 0.2) and not is_better("regret", 0.2, 0.1)


def test_its_best_value_is_finite() -> None:
    with pytest.raises(ValueError) as caught:
        Metric("gain", "gain", regret, bounds=(-math.inf, math.inf))
    assert str(caught.value) == "metric 'gain': its best value must be finite, bounds are (-inf, inf)"
