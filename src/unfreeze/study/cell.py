"""Specification of a cell: its images, settings and networks, and the fingerprint of what its numbers depend on."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from unfreeze.activations.keys import prefix_of
from unfreeze.activations.reads import (
    CellImages,
    PhaseSpan,
    ReadCounts,
    Reads,
    all_reads,
    candidate_reads,
    phase_spans,
    prediction_counts,
    training_counts,
)
from unfreeze.config.identity import cell_fingerprint, compute_record, regime_record, strategy_record
from unfreeze.config.resolve import Cell, Strategy
from unfreeze.config.schema import RegimeConfig, StudyConfig
from unfreeze.data.catalog import Catalog, keys_of, rows_of
from unfreeze.data.subset import Selection
from unfreeze.storage.atomic import TEMPORARY
from unfreeze.storage.records import read_json
from unfreeze.storage.study_dir import StudyDir
from unfreeze.study.network_plan import NetworkPlan
from unfreeze.text import plural
from unfreeze.train.device import Compute, conditions


@dataclass(frozen=True)
class CellSpec:
    """A cell: everything that its numbers depend on, and what follows from that.

    Attributes:
        cell: its strategy, regime, seed and fold.
        study: whose cell it is.
        catalog: the images of the study.
        selection: ids of the cell's own images.
        networks: of its candidates, by name.
        weights: the sha256 of initial weights, by backbone and what the study calls them.
        device: the type of device that it runs on.
    """

    cell: Cell
    study: StudyConfig
    catalog: Catalog
    selection: Selection
    networks: Mapping[str, NetworkPlan]
    weights: Mapping[tuple[str, str], str]
    device: str

    @property
    def id(self) -> str:
        """The id that names it in files and messages."""
        return self.cell.id

    @property
    def regime(self) -> RegimeConfig:
        """The cell's regime."""
        return self.study.regimes[self.cell.regime]

    @cached_property
    def candidates(self) -> dict[str, Strategy]:
        """The cell's candidates by name."""
        return {name: network.strategy for name, network in self.networks.items()}

    @cached_property
    def train(self) -> tuple[str, ...]:
        """Ids that a pass over the training images draws; ``balance: oversample`` repeats those of rarer classes."""
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
        """Weight of each class in the training loss under ``balance: weights``; their mean over the images is 1."""
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
        """Content keys of its images, see ``catalog.keys_of``."""
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
        """Settings of the whole study that its numbers depend on."""
        return compute_record(self.study, self.device)

    def phase_spans(self, candidate: str) -> list[PhaseSpan]:
        """Return the steps of a candidate's phases, if nothing stops it early."""
        network = self.networks[candidate]
        return phase_spans(network.strategy, network.cuts, len(self.train), self.regime)

    def examples(self, candidate: str) -> int:
        """Return how many training images a candidate draws, if nothing stops it early."""
        return sum(span.examples for span in self.phase_spans(candidate))

    @cached_property
    def reads(self) -> Reads:
        """Rows of activations that its candidates read in all."""
        known = dict[Any, Reads]()
        for candidate, network in self.networks.items():
            strategy, spans = network.strategy, tuple(self.phase_spans(candidate))
            alike = prefix_of(strategy), strategy.batch_size, spans, min(network.cuts)
            if alike not in known:  # twenty learning rates read the same rows
                known[alike] = candidate_reads(strategy, network.cuts, self.regime, self.cell.seed, self.shas)
        return all_reads(known.values())

    def training_counts(self, candidate: str) -> ReadCounts:
        """Return how many rows a candidate reads while it trains."""
        network = self.networks[candidate]
        return training_counts(network.strategy, network.cuts, self.regime, self.cell.seed, self.shas)

    def prediction_counts(self) -> ReadCounts:
        """Return how many rows its predictions read; its first candidate stands for the one that will be chosen."""
        first = next(iter(self.networks.values()))
        return prediction_counts(first.strategy, first.cuts, self.shas)


def weights_key(strategy: Strategy) -> tuple[str, str]:
    """Return the key of a strategy's initial weights."""
    return strategy.backbone.name, strategy.backbone.weights


SHOWN = 3
"""Most differences that a warning lists."""


def stale_warnings(store: StudyDir, specs: Mapping[str, CellSpec]) -> list[str]:
    """Return a warning for each set of differences between finished cells and the same cells as planned now.

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


def conditions_warnings(store: StudyDir, finished: Sequence[str], compute: Compute) -> list[str]:
    """Return a warning for each set of other conditions under which finished cells were computed.

    They stay finished; new cells may differ from them in the last digits.
    """
    now = conditions(compute)
    cells: dict[str, list[str]] = {}
    for cell_id in finished:
        before = read_json(store.cell(cell_id) / "cell.json").get("made_with", {})
        differing = [f"{key} {before[key]}, now {now[key]}" for key in now if before.get(key, now[key]) != now[key]]
        if differing:
            cells.setdefault("; ".join(differing), []).append(cell_id)
    return [
        f"finished under other conditions ({differing}), which new cells may differ from in the last digits "
        f"(another --out runs all of them again): {', '.join(cell_ids)}"
        for differing, cell_ids in cells.items()
    ]


def leftover_warnings(store: StudyDir, planned: Sequence[str]) -> list[str]:
    """Return a warning of cells in the directory that the study does not have, [] if there are none."""
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
    return "; ".join([*found[:SHOWN], *more]) or "in settings that cell.json does not hold"


def _settings(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return a cell's settings for comparison: one candidate's, and the names of all for the tuned values."""
    labels = list(record["candidates"])
    first = record["candidates"][labels[0]]
    strategy = {"tune": " or ".join(labels) or "nothing"}
    strategy |= {**first, "backbone": first["backbone"]["name"]}
    regime = {f"regime's {name}": value for name, value in record["regime_settings"].items()}
    return strategy | regime | record.get("compute", {})


def _differing(was: Any, now: Any, path: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Yield the paths at which two settings differ, with both values; None where one has no value."""
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
