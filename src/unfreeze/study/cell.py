"""Specification of a cell: its images, its settings, and the fingerprint over all that its numbers depend on."""

import hashlib
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from unfreeze.config.identity import cell_fingerprint, compute_record
from unfreeze.config.resolve import Cell, Strategy, candidates, expected_epochs
from unfreeze.config.schema import RegimeConfig, StudyConfig
from unfreeze.data.catalog import Catalog, keys_of, rows_of
from unfreeze.data.subset import Selection
from unfreeze.inputs.sampler import epoch_ends, examples_after
from unfreeze.study.registries import registered


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


def examples_of(job: CellSpec, strategy: Strategy) -> int:
    """Return how many examples a candidate draws if nothing stops it early."""
    images = len(job.train)
    ends = epoch_ends(images, strategy.batch_size, job.regime, expected_epochs(strategy))
    return examples_after(images, strategy.batch_size, ends[-1])
