"""Scan the images of a study, compare them with the last run, split them, and select those of each cell."""

import contextlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image
from torch.nn.modules.batchnorm import _BatchNorm

from unfreeze.activations.store import MANIFEST_BYTES
from unfreeze.config.resolve import Strategy
from unfreeze.config.schema import CheckConfig, StudyConfig
from unfreeze.data.catalog import Catalog, build_catalog, known_contents
from unfreeze.data.dataset_diff import DatasetChanges, Drawn, changes, keep_ids, keep_what_was_drawn
from unfreeze.data.scan import Callbacks
from unfreeze.data.scan_cache import CacheNotWritten
from unfreeze.data.sources.source import Source
from unfreeze.data.split import TEST, TRAIN, VALIDATION, draw_split, is_same_split
from unfreeze.data.subset import Selection, select
from unfreeze.errors import UserError
from unfreeze.events import Emit, Preparing, Scanning, Warned
from unfreeze.inputs.preprocess import base_picture, pixel_store
from unfreeze.model.cuts import cuts_of, fresh_from
from unfreeze.storage.array_store import SHARD_BYTES, ArrayStore, CacheFull, Writer
from unfreeze.storage.cache import holding, in_use, make_room, obtainable, used_bytes
from unfreeze.storage.records import is_accepted, read_table
from unfreeze.storage.shards import Row
from unfreeze.storage.study_dir import StudyDir
from unfreeze.study.cell import CellSpec
from unfreeze.study.disk import disk_budget
from unfreeze.study.network_plan import Plan, all_problems, bases_of, preprocessings, weight_hashes
from unfreeze.train.device import Compute
from unfreeze.train.micro_batch import has_lone_batch, lone_batch


def look_at_data(
    study: StudyConfig, source: Source, plan: Plan, cache: Path | None, emit: Emit, reserve: int = 0
) -> Catalog:
    """Read and decode the images of a study that are not in the scan cache, and store their base pictures.

    ``reserve`` bytes stay free on the cache's disk.
    """
    coming = len(source.items)

    def progress(done: int, total: int) -> None:
        nonlocal coming
        coming = total - done
        emit(Scanning(done, total))

    def comparing(done: int, total: int) -> None:
        emit(Preparing("comparing pictures that look alike", done, total))

    callbacks = Callbacks(progress, comparing)

    def catalog(scan_cache: Path | None, callbacks: Callbacks) -> Catalog:
        return build_catalog(source, study.split.group, scan_cache, study.check, callbacks=callbacks)

    if cache is None:
        return catalog(None, callbacks)
    failed: list[UserError] = []
    with contextlib.ExitStack() as stack:
        stores = {base: pixel_store(cache, base) for base in bases_of(preprocessings(plan))}
        marks = stack.enter_context(in_use(stores.values()))
        folders, budget = [store.folder for store in stores.values()], disk_budget(study, cache, reserve)
        room = _Room(cache, budget, source, study.check, folders, marks)
        writers = {base: stack.enter_context(_writing(store, failed.append)) for base, store in stores.items()}
        held = {base: store.held() for base, store in stores.items()}

        def prepare(picture: Image.Image) -> list[np.ndarray]:
            return [np.asarray(base_picture(picture, base)) for base in stores]

        def keep(sha256: str, pictures: list[np.ndarray]) -> None:
            made = zip(stores, pictures, strict=True)
            new = [(writers[base], pixels) for base, pixels in made if (sha256, 0) not in held[base]]
            if not room.take(sha256, sum(pixels.nbytes + MANIFEST_BYTES for _, pixels in new), coming):
                return
            for writer, pixels in new:
                try:
                    writer.add((sha256, 0), pixels)
                except CacheFull as error:
                    failed.append(error)
                    room.close()

        try:
            found = catalog(cache / "looks", replace(callbacks, on_picture=keep, prepare=prepare))
        except CacheNotWritten as error:  # scan again without a cache: slow, but rare
            failed.append(error)
            found = catalog(None, callbacks)
    if failed:
        emit(Warned(f"not all results of reading the images are cached for the next run: {failed[0].given}"))
    return found


class _Room:
    """Room in the cache for a study's base pictures; entries that were used least recently are deleted for it.

    Room for one shard is made at a time, so that little is deleted in vain, and no row of the study's own images.
    Where not all pictures will fit, none is stored: the study uses all or none.

    Args:
        cache: its folder.
        budget: bytes that the whole cache may have.
        source: the study's files.
        check: how files are read.
        folders: of the entries that pictures are written to.
        marks: by which this process marks these entries as in use.
    """

    def __init__(
        self,
        cache: Path,
        budget: int,
        source: Source,
        check: CheckConfig,
        folders: Sequence[Path],
        marks: Collection[Path],
    ) -> None:
        self._cache, self._budget, self._source, self._folders, self._marks = cache, budget, source, folders, marks
        self._check = check
        self._left = budget - used_bytes(cache)
        self._pictures = set[Row]()
        self._keep: dict[Path, set[Row]] | None = None
        self._closed = False

    def take(self, sha256: str, size: int, coming: int) -> bool:
        """Reserve the bytes of an image's pictures, with ``coming`` files still to read; tell whether there is room."""
        if self._keep is None and size * coming > self._left:
            self._keep = self._look_round(size, coming)
        if size > self._left and self._keep is not None and not self._closed:
            needed = min(size * coming, max(size, SHARD_BYTES))
            self._left = make_room(self._cache, needed, self._budget, self._keep, self._marks)
            if size > self._left:
                self.close()
        if size > self._left:
            return False
        self._left -= size
        self._pictures.add((sha256, 0))
        return True

    def close(self) -> None:
        """Refuse all further pictures."""
        self._left, self._closed = 0, True

    def _look_round(self, size: int, coming: int) -> dict[Path, set[Row]]:
        """Return the rows to keep in each entry; refuse all pictures if the new ones do not fit."""
        known = known_contents(self._source, self._cache / "looks", self._check)
        self._pictures |= {(sha256, 0) for sha256 in known}
        keep = {**holding(self._cache, known), **dict.fromkeys(self._folders, self._pictures)}
        new = min(coming, len(self._source.items) - len(known))
        if size * new > obtainable(self._cache, self._budget, keep, self._marks):
            self.close()
        return keep


@contextlib.contextmanager
def _writing(store: ArrayStore, on_full: Callable[[CacheFull], None]) -> Iterator[Writer]:
    """Open a writer whose last shard may fail; pictures that are not stored are made again."""
    try:
        with store.writer() as writer:
            yield writer
    except CacheFull as error:
        on_full(error)


@dataclass(frozen=True)
class DatasetDiff:
    """The images of a study, and how they differ from those of its last run.

    Attributes:
        catalog: without new images that would change the split.
        drawn: the split of the last run; empty where it is drawn again.
        changed: changes since the last run.
        warnings: about these changes.
    """

    catalog: Catalog
    drawn: Drawn
    changed: DatasetChanges
    warnings: tuple[str, ...]


def since_last_run(
    store: StudyDir, last_record: Mapping[str, Any], study: StudyConfig, catalog: Catalog, where: str = ""
) -> DatasetDiff:
    """Compare the data with what the last run of this study saw; the test set stays as drawn (docs/data.md).

    Args:
        store: the study directory.
        last_record: see ``prepare.read_last_record``.
        study: as it is now.
        catalog: of the data as it is now.
        where: added to the warning: where the changes are listed.

    Raises:
        UserError: a class is new, and so has no image in the test set that stays.
    """
    paths = store.path / "catalog.csv", store.path / "splits.csv"
    if not last_record or not all(path.is_file() for path in paths):
        return DatasetDiff(catalog, {}, DatasetChanges(), ())
    altered = [path.name for path in paths if not is_accepted(path, last_record.get("files", {}))]
    if altered:
        text = f"{' and '.join(altered)}: altered since the last run, so the split is drawn again"
        return DatasetDiff(catalog, {}, DatasetChanges(), (text,))
    seen, splits = map(read_table, paths)
    catalog = keep_ids(seen, catalog)
    changed = changes(seen, catalog.images)
    words = f"the images changed since the last run: {changed.words}{where}"
    draws_again = not is_same_split(last_record["study"]["split"], study.split) or 2 * len(changed.removed) > len(seen)
    if draws_again:
        why = words if changed.words else "the settings of split changed"
        text = f"{why}; the split is drawn again"
        return DatasetDiff(catalog, {}, changed, (text,))
    drawn: dict[int | None, dict[str, str]] = {}
    for name, pool, fold in zip(splits["id"], splits["split"], splits["fold"], strict=True):
        if pool in (TRAIN, VALIDATION, TEST):
            drawn.setdefault(None if fold != fold else int(fold), {})[name] = pool
    _refuse_new_classes(catalog, last_record["classes"], drawn, store.path)
    same_rules = all(last_record["study"]["check"][name] == getattr(study.check, name) for name in _RULES)
    labels = dict(zip(seen["id"], seen["label"], strict=True)) if same_rules else {}
    kept = f"{words}; the test set stays as it was drawn, and cells whose images changed run again"
    return DatasetDiff(keep_what_was_drawn(catalog, drawn, labels), drawn, changed, (kept,) if changed.words else ())


_RULES = ("label_conflicts", "near_duplicates")
"""Settings of the check that decide which images are used although they have copies."""


def _refuse_new_classes(catalog: Catalog, before: Sequence[str], drawn: Drawn, out: Path) -> None:
    """Refuse new classes without an image in a test set that stays; a class that was renamed or divided has some."""
    images = catalog.images[(catalog.images["source"] == "") & (catalog.images["given_split"] == "")]
    images = images[images["status"] == "used"]
    added = set(images["label"]) - set(before)
    tests = [{name for name, pool in split.items() if pool == TEST} for split in drawn.values()]
    tested = [set(images.loc[images["id"].isin(test), "label"]) for test in tests if test]
    new = sorted(label for label in added if not all(label in labels for labels in tested))
    if new:
        raise UserError(
            f"new classes since the last run: {', '.join(new)}; "
            "the test set, which stays as it was drawn, has no image of them",
            f"the classes that the study began with: {', '.join(before)}",
            f"remove the new classes, or draw the split in another study directory: --out {out}-2",
        )


def draw_splits(study: StudyConfig, catalog: Catalog, plan: Plan, drawn: Drawn) -> dict[int | None, pd.Series]:
    """Return the split of each image, by fold; ``drawn`` is what an earlier run drew."""
    folds = dict.fromkeys(cell.fold for cell in plan.cells)
    return {fold: draw_split(catalog, study.split, fold, drawn.get(fold)) for fold in folds}


def cell_specs(
    study: StudyConfig, catalog: Catalog, plan: Plan, splits: Mapping[int | None, pd.Series], compute: Compute
) -> dict[str, CellSpec]:
    """Select each cell's images; return the cells by id, in plan order.

    Raises:
        UserError: names every regime that the data cannot give.
    """
    specs, problems = dict[str, CellSpec](), dict[str, UserError]()
    selections: dict[tuple[str, int, int | None], Selection] = {}
    weights, device = weight_hashes(plan), compute.device.type
    for cell in plan.cells:
        key = (cell.regime, cell.seed, cell.fold)
        try:
            if key not in selections:
                regime = study.regimes[cell.regime]
                selections[key] = select(catalog, splits[cell.fold], regime, cell.seed, study.split.val == "test")
        except UserError as error:
            problems[cell.regime] = error
            continue
        networks = plan.candidates[cell.strategy]
        specs[cell.id] = CellSpec(cell, study, catalog, selections[key], networks, weights, device)
    if problems:
        raise all_problems("regimes", problems)
    return specs


class LoneBatch(UserError):
    """Every cell of a strategy has a batch of one image, so that there is nothing to plan."""


def refuse_lone_batches(specs: Mapping[str, CellSpec], plan: Plan) -> None:
    """Reject strategies whose every cell has a batch of one image, which BatchNorm cannot train on.

    Where some cells of a strategy can train, the study runs, and the others fail in their turn.

    Args:
        specs: the cells, by id.
        plan: has their backbones.

    Raises:
        LoneBatch: names every such strategy.
    """
    lone: dict[str, list[tuple[int, int]]] = {}
    able = set[str]()
    for spec in specs.values():
        name, images = spec.cell.strategy, len(spec.train)
        sizes = [one.batch_size for one in spec.candidates.values() if _is_lone(one, plan, images)]
        if sizes:
            lone.setdefault(name, []).append((sizes[0], images))
        else:
            able.add(name)
    problems: dict[str, UserError] = {}
    for name, found in lone.items():
        if name not in able:
            study = next(spec.study for spec in specs.values() if spec.cell.strategy == name)
            size, _ = found[0]
            tuned = study.strategies[name].tune.get("batch_size", ())
            problems[name] = lone_batch(size, {images for _, images in found}, _key(study, name, size), tuned)
    if problems:
        error = all_problems("strategies", problems)
        raise LoneBatch(error.given, error.expected, error.fix)


def _key(study: StudyConfig, name: str, batch_size: int) -> str:
    """Return the path of the setting from which a strategy has its batch size."""
    asked = study.strategies[name]
    if "batch_size" in asked.tune:
        return f"strategies.{name}.tune.batch_size.{asked.tune['batch_size'].index(batch_size)}"
    return "batch_size" if asked.batch_size is None else f"strategies.{name}.batch_size"


def _is_lone(strategy: Strategy, plan: Plan, images: int) -> bool:
    """Tell whether BatchNorm takes its statistics from a batch of one image in some phase."""
    if not has_lone_batch(images, strategy.batch_size):
        return False
    backbone = plan.backbone(strategy, 0)
    cuts = cuts_of(strategy, backbone)
    first_fresh = fresh_from(strategy, cuts, len(backbone.stages))
    for phase, cut, fresh in zip(strategy.phases, cuts, first_fresh, strict=True):
        learning = backbone.stages[cut if phase.batch_norm == "train" else max(cut, fresh) :]
        if any(isinstance(module, _BatchNorm) for stage in learning for module in stage.module.modules()):
            return True
    return False
