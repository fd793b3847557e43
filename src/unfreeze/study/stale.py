"""Cells left behind by an edited study: finished with other settings, or no longer part of it."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from unfreeze.config.identity import regime_record, strategy_record
from unfreeze.storage.atomic import TEMPORARY
from unfreeze.storage.records import read_json
from unfreeze.storage.study_dir import StudyDir
from unfreeze.study.cell import CellSpec, weights_key
from unfreeze.text import plural

SHOWN = 3
"""Differences that a warning spells out."""


def finished_otherwise(store: StudyDir, jobs: Mapping[str, CellSpec]) -> list[str]:
    """Return a sentence for each set of differences that finished cells have from what is planned now: what, which.

    Args:
        store: the study directory.
        jobs: the cells as planned, by id.
    """
    cells: dict[str, list[str]] = {}
    for name, job in jobs.items():
        if store.is_stale({"cell": name, "fingerprint": job.fingerprint}):
            cells.setdefault(_differences(store, name, job), []).append(name)
    return [
        f"finished with other settings or images ({differing}), so not part of this study now (another --out keeps "
        f"both): {', '.join(names)}"
        for differing, names in cells.items()
    ]


def left_over(store: StudyDir, planned: Sequence[str]) -> list[str]:
    """Return a sentence on the cells in the directory that the study does not have, nothing without any."""
    folders = [path for path in store.path.glob("cells/*") if path.suffix != TEMPORARY and path.is_dir()]
    names = {path.name for path in folders if any(path.iterdir())} | {path.stem for path in store.running.glob("*.*")}
    others = sorted(names.difference(planned))
    if not others:
        return []
    are, their = ("is", "its") if len(others) == 1 else ("are", "their")
    return [
        f"{plural(len(others), 'cell')} of an earlier version of the study {are} not part of it now; {their} files "
        f"stay in cells/ and running/: {', '.join(others)}"
    ]


def _differences(store: StudyDir, name: str, job: CellSpec) -> str:
    folder = store.cell(name)
    if not (folder / "cell.json").is_file():
        return "cell.json is lost"
    before = read_json(folder / "cell.json")
    candidates = {label: strategy_record(strategy) for label, strategy in job.candidates.items()}
    record = {"candidates": candidates, "regime_settings": regime_record(job.regime), "compute": job.compute}
    now = {part: settings for part, settings in record.items() if part in before}  # older versions wrote down less
    found = [
        f"{path} {_shown(was)}, now {_shown(wanted)}"
        for path, was, wanted in _differing(_settings(before), _settings(now))
    ]
    if before["weights"]["sha256"] not in [job.weights[weights_key(one)] for one in job.candidates.values()]:
        found.append("other initial weights")
    if before["data_fingerprint"] != job.data_fingerprint:
        found.append("other images")
    more = [f"and {len(found) - SHOWN} more"] if len(found) > SHOWN else []
    return "; ".join([*found[:SHOWN], *more]) or "in what is not written down"


def _settings(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return a cell's settings as they are compared: of candidates the tuned values, and one for all; no weights."""
    labels = list(record["candidates"])
    first = record["candidates"][labels[0]]
    strategy = {"tune": " or ".join(labels) or "nothing"}
    strategy |= {**first, "backbone": first["backbone"]["name"]}
    regime = {f"regime's {name}": value for name, value in record["regime_settings"].items()}
    return strategy | regime | record.get("compute", {})


def _differing(was: Any, now: Any, path: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Yield the paths at which two settings differ, with both values; None where there is nothing."""
    if isinstance(was, list) and isinstance(now, list) and len(was) == len(now):
        was, now = dict(enumerate(was)), dict(enumerate(now))
    if not (isinstance(was, dict) and isinstance(now, dict)):
        if was != now:
            yield path, was, now
        return
    for key in dict.fromkeys([*was, *now]):
        yield from _differing(was.get(key), now.get(key), f"{path}.{key}" if path else str(key))


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
