"""Specification of a cell: its images, its settings, and the fingerprint over all that its numbers depend on."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from unfreeze.config.identity import cell_fingerprint, compute_record, regime_record, strategy_record
from unfreeze.config.resolve import Cell, Strategy, candidates, expected_epochs
from unfreeze.config.schema import RegimeConfig, StudyConfig
from unfreeze.data.catalog import Catalog, keys_of, rows_of
from unfreeze.data.subset import Selection
from unfreeze.inputs.sampler import epoch_ends, examples_after
from unfreeze.storage.atomic import TEMPORARY
from unfreeze.storage.records import read_json
from unfreeze.storage.study_dir import StudyDir
from unfreeze.study.registries import registered
from unfreeze.text import plural


@dataclass(frozen=True)
class CellImages:
    """The contents (sha256) of a cell's images; ``ranking`` holds those of ``validation`` too."""

    train: tuple[str, ...]
    validation: tuple[str, ...]
    tests: tuple[str, ...]
    ranking: tuple[str, ...]


@dataclass(frozen=True)
class CellSpec:
    """Everything that a cell's numbers depend on, and nothing else."""

    cell: Cell
    study: StudyConfig
    catalog: Catalog
    selection: Selection
    weights: Mapping[tuple[str, str], str]
    """The sha256 of initial weights, by backbone and what the study calls them."""
    device: str

    @property
    def regime(self) -> RegimeConfig:
        """The cell's regime."""
        return self.study.regimes[self.cell.regime]

    @cached_property
    def candidates(self) -> dict[str, Strategy]:
        """The cell's candidates by name."""
        return candidates(self.study, self.cell.strategy, registered())

    @cached_property
    def train(self) -> tuple[str, ...]:
        """The ids that a pass draws: under ``balance: oversample`` those of rarer classes several times."""
        if self.regime.balance != "oversample":
            return self.selection.train
        counts = self._class_counts
        most = max(counts.values())
        labels = rows_of(self.catalog, self.selection.train)["label"]
        return tuple(
            name
            for name, label in zip(self.selection.train, labels, strict=True)
            for _ in range(round(most / counts[label]))
        )

    @cached_property
    def class_weights(self) -> tuple[float, ...] | None:
        """The weight of each class in the training loss under ``balance: weights``, 1 on average over the images."""
        if self.regime.balance != "weights":
            return None
        counts = self._class_counts
        images, classes = len(self.selection.train), self.catalog.classes
        return tuple(images / (len(classes) * counts[label]) for label in classes)

    @property
    def _class_counts(self) -> Counter[str]:
        return Counter(rows_of(self.catalog, self.selection.train)["label"])

    @cached_property
    def data_fingerprint(self) -> str:
        """Identity of the images used: pictures and labels of each split, in order."""
        ids = [*self.selection.train, *self.selection.validation]
        ids += [identifier for test in self.selection.tests.values() for identifier in test]
        rows = rows_of(self.catalog, ids)
        text = json.dumps([keys_of(self.catalog, ids), rows["label"].tolist(), self.catalog.classes])
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @cached_property
    def shas(self) -> CellImages:
        """What names the pictures of its images, see ``catalog.keys_of``."""
        chosen = self.selection
        tests = [identifier for test in chosen.tests.values() for identifier in test]
        each = self.train, chosen.validation, tests, chosen.ranking
        train, validation, reported, ranking = (tuple(keys_of(self.catalog, ids)) for ids in each)
        return CellImages(train, validation, reported, ranking)

    @cached_property
    def fingerprint(self) -> str:
        """Identity of settings, initial weights and images: a finished cell with another one is stale."""
        return cell_fingerprint(
            self.study, self.cell, self.candidates, self.weights, self.device, self.data_fingerprint
        )

    @property
    def compute(self) -> dict[str, str]:
        """What of the whole study its numbers depend on."""
        return compute_record(self.study, self.device)


def weights_key(strategy: Strategy) -> tuple[str, str]:
    """Return what names a strategy's initial weights."""
    return strategy.backbone.name, strategy.backbone.weights


def examples_of(spec: CellSpec, strategy: Strategy) -> int:
    """Return how many examples a candidate draws if nothing stops it early."""
    images = len(spec.train)
    ends = epoch_ends(images, strategy.batch_size, spec.regime, expected_epochs(strategy))
    return examples_after(images, strategy.batch_size, ends[-1])


SHOWN = 3
"""Differences that a warning spells out."""


def finished_otherwise(store: StudyDir, specs: Mapping[str, CellSpec]) -> list[str]:
    """Return a sentence for each set of differences that finished cells have from what is planned now: what, which.

    Args:
        store: the study directory.
        specs: the cells as planned, by id.
    """
    cells: dict[str, list[str]] = {}
    for name, spec in specs.items():
        if store.is_stale({"cell": name, "fingerprint": spec.fingerprint}):
            cells.setdefault(_differences(store, name, spec), []).append(name)
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


def _differences(store: StudyDir, name: str, spec: CellSpec) -> str:
    folder = store.cell(name)
    if not (folder / "cell.json").is_file():
        return "cell.json is lost"
    before = read_json(folder / "cell.json")
    candidates = {label: strategy_record(strategy) for label, strategy in spec.candidates.items()}
    record = {"candidates": candidates, "regime_settings": regime_record(spec.regime), "compute": spec.compute}
    now = {part: settings for part, settings in record.items() if part in before}  # older versions wrote down less
    found = [
        f"{path} {_shown(was)}, now {_shown(wanted)}"
        for path, was, wanted in _differing(_settings(before), _settings(now))
    ]
    if before["weights"]["sha256"] not in [spec.weights[weights_key(one)] for one in spec.candidates.values()]:
        found.append("other initial weights")
    if before["data_fingerprint"] != spec.data_fingerprint:
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
