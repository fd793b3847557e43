"""Classes that are too small for what a study asks of them."""

from collections.abc import Mapping

from unfreeze.config.study import RegimeConfig, SplitConfig
from unfreeze.data.catalog import Catalog
from unfreeze.data.check import Finding, Severity
from unfreeze.data.regimes import select
from unfreeze.data.splits import TEST, draw_split
from unfreeze.errors import UserError


def shortfalls(catalog: Catalog, split: SplitConfig, regimes: Mapping[str, RegimeConfig]) -> list[Finding]:
    """Return a finding for each thing that the data cannot give, whichever regimes ask for it.

    An error ends a run before anything trains; a warning is what it would warn of. Of folds the first is drawn, and of
    seeds any: how many images there are of a class does not depend on it.
    """
    try:
        drawn = draw_split(catalog, split, None if split.folds is None else 0)
    except UserError as error:
        return [Finding("small_class", "error", (), error.given)]
    names: dict[tuple[Severity, str], list[str]] = {}
    for name, regime in regimes.items():
        try:
            for text in select(catalog, drawn, regime, 0, split.val == TEST).warnings:
                names.setdefault(("warning", text), []).append(name)
        except UserError as error:
            names.setdefault(("error", error.given), []).append(name)
    return [
        Finding("small_class", severity, (), f"regime{'s' * (len(asking) > 1)} {' and '.join(asking)}: {text}")
        for (severity, text), asking in names.items()
    ]
