"""Where a study's recipes stand: which one is recommended, which are level with it, which model is shipped.

Validation ranks, the test images report (``results.selection`` has the rule).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from unfreeze.metrics import HIGHER_IS_BETTER
from unfreeze.results.predictions import Field, Predictions, Ranking
from unfreeze.results.selection import Choice, Contender, choose


@dataclass(frozen=True)
class Standing:
    """The recipes of a study that have finished runs, ranked.

    Attributes:
        contenders: a recipe each, in plan order.
        choice: positions in ``contenders``.
        metric: the study's.
        cell: the model to take away: of the recommended recipe's first seed (and first fold).
        images: of the ranking set, that every candidate predicts; 0 where they have none in common, as directories of
            earlier versions may.
        smallest_class: images of the class with the fewest of these.
    """

    contenders: tuple[Contender, ...]
    choice: Choice
    metric: str
    cell: str
    images: int
    smallest_class: int

    @property
    def recommended(self) -> Field:
        """The recipe to use."""
        return self.recipe(self.choice.recommended)

    @property
    def value(self) -> float:
        """Its ranking metric, the mean over seeds."""
        return self.value_of(self.choice.recommended)

    def recipe(self, place: int) -> Field:
        """Return a contender's strategy and regime."""
        return self.contenders[place].strategy, self.contenders[place].regime

    def value_of(self, place: int) -> float:
        """Return a contender's ranking metric, in the metric's own direction."""
        return _sign(self.metric) * float(np.nanmean(self.contenders[place].values))


def standing(results: pd.DataFrame, ranking: Ranking, networks: Mapping[str, Mapping[str, Any]]) -> Standing | None:
    """Rank the recipes of a study; None where no run of any has finished.

    Args:
        results: the table of ``results_table``.
        ranking: predictions of the ranking set.
        networks: plan.json's, by strategy: for FLOPs that cells of earlier versions did not record.
    """
    done = results[(results["status"] == "finished") & results["val_metric"].notna()]
    if done.empty:
        return None
    fields = list(dict.fromkeys(zip(done["strategy"].map(str), done["regime"].map(str), strict=True)))
    sizes = _sizes(done)
    values, ids, units = _values(ranking.predictions, fields, sizes)
    if not len(ids):
        values, units = _by_cell(done, fields, ranking.predictions.metric), np.array(["all"])
    contenders = tuple(
        Contender(
            strategy=field[0],
            regime=field[1],
            n_train=sizes[field[1]],
            flops=_flops(_own(done, field), networks.get(field[0], {})),
            params_trained=int(_own(done, field)["params_trained"].iloc[0]),
            values=np.array(list(values[field].values())),
            seeds=tuple(values[field]),
            paid=not len(ids) or field not in ranking.unpaid,
        )
        for field in fields
        if values.get(field)
    )
    if not contenders:
        return None
    choice = choose(contenders, units)
    if not len(ids):  # nothing to tell them apart by
        choice = replace(choice, level=(), n_needed=None)
    best = contenders[choice.recommended]
    return Standing(
        contenders,
        choice,
        ranking.predictions.metric,
        str(_own(done, (best.strategy, best.regime))["cell"].iloc[0]),
        len(ids),
        _smallest_class(ranking.predictions, ids),
    )


Runs = dict[int, NDArray[np.float64]]
"""Values by image, larger is better, by seed."""


def _sign(metric: str) -> int:
    return 1 if HIGHER_IS_BETTER[metric] else -1


def _own(done: pd.DataFrame, field: Field) -> pd.DataFrame:
    return done[(done["strategy"] == field[0]) & (done["regime"] == field[1])]


def _values(
    predictions: Predictions, fields: Sequence[Field], sizes: Mapping[str, float]
) -> tuple[dict[Field, Runs], list[str], NDArray[np.str_]]:
    """Return each recipe's runs on the images that all candidates predict, these images, and their units.

    Images that a recipe with fewer training images does not predict are NaN: in directories of earlier versions it has
    its own validation images alone, and these few must not rank the others.
    """
    tables = _runs(predictions, fields)
    most = max((sizes[field[1]] for field in tables), default=0.0)
    candidates = [table for field, runs in tables.items() if sizes[field[1]] == most for table in runs.values()]
    if not candidates:
        return {}, [], np.array([], dtype=np.str_)
    common = candidates[0].index
    for table in candidates[1:]:
        common = common[common.isin(table.index)]
    if any(len(table) > len(common) for table in candidates):  # an image's number may depend on the others
        tables = _runs(_only(predictions, common), fields)
    sign = _sign(predictions.metric)
    found = {
        field: {seed: sign * table["value"].reindex(common).to_numpy(np.float64) for seed, table in runs.items()}
        for field, runs in tables.items()
        if all(table.index.isin(common).any() for table in runs.values())
    }
    if not all(np.isfinite(run).all() for field in found if sizes[field[1]] == most for run in found[field].values()):
        return {}, [], np.array([], dtype=np.str_)
    return found, list(map(str, common)), candidates[0].loc[common, "unit"].to_numpy(np.str_)


def _runs(predictions: Predictions, fields: Sequence[Field]) -> dict[Field, dict[int, pd.DataFrame]]:
    tables = {field: predictions.runs(field, "validation", predictions.metric) for field in fields}
    return {field: runs for field, runs in tables.items() if runs}


def _only(predictions: Predictions, ids: pd.Index) -> Predictions:
    """Return the predictions of some images alone."""
    cells = []
    for one in predictions.cells:
        of = np.isin(one.ids, ids.to_numpy(np.str_))
        parts = {name: getattr(one, name)[of] for name in ("ids", "labels", "logits", "units")}
        cells.append(replace(one, **parts))
    return replace(predictions, cells=tuple(cells))


def _by_cell(done: pd.DataFrame, fields: Sequence[Field], metric: str) -> dict[Field, Runs]:
    """Return each seed's mean validation metric as if it were one image: for cells without a common ranking set."""
    sign = _sign(metric)
    return {
        field: {
            int(seed): np.array([sign * float(own.loc[own["seed"] == seed, "val_metric"].mean())])
            for own in [_own(done, field)]
            for seed in own["seed"].unique()
        }
        for field in fields
    }


def _sizes(done: pd.DataFrame) -> dict[str, float]:
    """Return each regime's mean number of training images, over the seeds and folds that all regimes have if any."""
    each = done.assign(fold=done["fold"].fillna(-1)).groupby(["regime", "seed", "fold"])["n_train"].first()
    by_regime = each.unstack("regime")
    common = by_regime.dropna()
    table = common if len(common) else by_regime
    return {str(regime): float(table[regime].astype(float).mean()) for regime in table.columns}


def _flops(own: pd.DataFrame, network: Mapping[str, Any]) -> float:
    known = own["flops_per_image"].dropna()
    if len(known):
        return float(known.mean())
    return float(sum(stage["flops"] for stage in network.get("stages", []))) or math.nan


def _smallest_class(predictions: Predictions, ids: Sequence[str]) -> int:
    labels: dict[str, int] = {}
    for one in predictions.cells:
        labels.update(zip(map(str, one.ids), map(int, one.labels), strict=True))
    counts = np.bincount([labels[name] for name in ids], minlength=len(predictions.classes)) if ids else np.array([0])
    return int(counts.min())
