"""A process that runs groups of cells for ``study.parallel``: a line of JSON in, lines of JSON out.

Asked: first the study as the asker has planned it, then groups (the names of their cells), what others computed
meanwhile, and at last to leave. Told: events, what it computed itself, and each group's end. When nobody can ask any
more without having said so, the asker was killed, and this process is gone at once, too.
"""

import gc
import json
import os
import queue
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, BinaryIO

import torch

from unfreeze.config.study import StudyConfig
from unfreeze.data.catalog import Catalog
from unfreeze.data.regimes import Selection
from unfreeze.durable import DiskFull
from unfreeze.errors import UserError
from unfreeze.model.backbone import Backbone
from unfreeze.reuse.prefix import Calibration, Prefix
from unfreeze.store import StudyDir, read_table
from unfreeze.study.cell import Job
from unfreeze.study.cells import Here
from unfreeze.study.events import MIDST, BetweenSteps, Emit, Event, Progress
from unfreeze.study.forecast import Calibrated, backbone_of, preprocessings, works_of
from unfreeze.study.grouping import GroupJob
from unfreeze.study.needs import Piece, PrefixKey, together
from unfreeze.study.plan import BackboneKey, make_plan, weight_hashes
from unfreeze.study.shared import Shared
from unfreeze.study.supply import Supply
from unfreeze.train.device import pick

LEAVE_SECONDS = 7.0
"""In which a process that is asked to leave saves where its cells stand; then it ends where it stands."""
PROGRESS_SECONDS = 0.1
"""Between two events of a cell's progress: a small head makes thousands of steps a second."""


class _Left(BaseException):
    """The asker wants this process to leave; not an Exception, so that no cell takes it for its own failure."""


def briefing(
    study: StudyConfig,
    out: Path,
    catalog: Catalog,
    jobs: Mapping[str, Job],
    calibrated: Calibrated,
    shared: Shared,
    cache: Path,
    workers: int,
) -> dict[str, Any]:
    """Return what a process has to know of a study that is planned, as JSON data; its images are in catalog.csv."""
    selections = {_selection_key(job): asdict(job.selection) for job in jobs.values()}
    return {
        "study": study.model_dump(mode="json", exclude_unset=True),  # what is unset decides where a default comes from
        "out": str(out),
        "roots": {name: str(root) for name, root in catalog.roots.items()},
        "classes": list(catalog.classes),
        "threads": torch.get_num_threads(),
        "cells": {name: [_selection_key(job), job.fingerprint] for name, job in jobs.items()},
        "selections": selections,
        "calibrations": [[asdict(key), found.as_record()] for key, found in calibrated.calibrations.items()],
        "stored": [asdict(piece) for piece in shared.rows()],
        "starts": [[asdict(piece), asdict(start)] for piece, start in shared.starts().items()],
        "shares": [[asdict(piece), share] for piece, share in shared.shares().items()],
        "pixels": shared.pixel_bytes > 0,
        "cache": str(cache),
        "workers": workers,
    }


def _selection_key(job: Job) -> str:
    return json.dumps([job.cell.regime, job.cell.seed, job.cell.fold])


def _piece(record: Mapping[str, Any]) -> Piece:
    return Piece(**{**record, "prefix": PrefixKey(**record["prefix"])})


def _selection(record: Mapping[str, Any]) -> Selection:
    tests = {name: tuple(ids) for name, ids in record["tests"].items()}
    train, validation, warnings, ranking = (
        tuple(record[name]) for name in ("train", "validation", "warnings", "ranking")
    )
    return Selection(train, validation, tests, warnings, ranking)


def _planned(told: Mapping[str, Any], emit: Emit) -> tuple[dict[str, GroupJob], Here]:
    """Return the study's cells and the hands that run them, as the asker has them.

    Raises:
        RuntimeError: they are not the asker's; something has changed since it planned them.
        UserError: a backbone or its weights are not to be had any more.
    """
    study = StudyConfig.model_validate(told["study"])
    torch.set_num_threads(told["threads"])  # as the study fixed them: sums depend on it
    compute = pick(study.device, study.precision)
    roots = {name: Path(root) for name, root in told["roots"].items()}
    catalog = Catalog(read_table(Path(told["out"]) / "catalog.csv"), roots, tuple(told["classes"]))
    backbones: dict[BackboneKey, Backbone] = {}
    plan = make_plan(study, len(catalog.classes), backbones)
    weights, selections = weight_hashes(backbones), {key: _selection(one) for key, one in told["selections"].items()}
    by_id = {cell.id: cell for cell in plan.cells}
    jobs = {
        name: Job(by_id[name], study, catalog, selections[key], weights, compute.device.type)
        for name, (key, _) in told["cells"].items()
    }
    for name, (_, fingerprint) in told["cells"].items():
        if jobs[name].fingerprint != fingerprint:
            raise RuntimeError(f"{name} is not the cell that was planned: images or weights have changed meanwhile")
    prefixes = {}
    for record, found in told["calibrations"]:
        key = PrefixKey(**record)
        backbone = backbones[key.backbone, key.weights, key.image_size]
        prefixes[key] = Prefix(backbone, Calibration.from_record(found), study.activations, compute.device)
    works = works_of(jobs, plan)
    rows = together(work.needs for work in works).rows
    supply = Supply(
        catalog,
        preprocessings(plan, backbones),
        prefixes,
        {piece: rows[piece] for piece in map(_piece, told["stored"])},
        {_piece(piece): _piece(start) for piece, start in told["starts"]},
        told["pixels"],
        Path(told["cache"]),
        told["workers"],
        emit,
    )
    shares = {_piece(piece): share for piece, share in told["shares"]}
    grouped = {work.cell: GroupJob(jobs[work.cell], work.networks, work.needs, shares) for work in works}
    store = StudyDir(Path(told["out"]))
    return grouped, Here(supply, lambda strategy, seed: backbone_of(strategy, backbones, seed), store, compute, emit)


class _Asker:
    """The process that asks: what it wants, and what it is told.

    Attributes:
        asked: the briefing, then the names of each group's cells; None: nothing more.
        heard: what others computed.
        leaving: is set when this process is to leave.
        news: is called before an event is told.
    """

    def __init__(self, asked: BinaryIO, told: BinaryIO) -> None:
        self.asked = queue.SimpleQueue[Any]()
        self.heard = queue.SimpleQueue[dict[str, Any]]()
        self.leaving = threading.Event()
        self.news: Callable[[], None] = lambda: None
        self._told, self._progress = told, dict[str, float]()
        threading.Thread(target=self._listen, args=(asked,), daemon=True).start()

    def _listen(self, asked: BinaryIO) -> None:
        for line in asked:
            message = json.loads(line)
            if "leave" in message:
                self.leaving.set()
                timer = threading.Timer(LEAVE_SECONDS, os._exit, [1])
                timer.daemon = True
                timer.start()
            elif "facts" in message:
                self.heard.put(message["facts"])
            else:
                self.asked.put(message["run"] if "run" in message else message)
        if not self.leaving.is_set():
            os._exit(1)
        self.asked.put(None)

    def tell(self, **message: Any) -> None:
        """Tell something; one who has gone is not told any more, and wants this process to leave."""
        try:
            self._told.write(json.dumps(message).encode() + b"\n")
            self._told.flush()
        except BrokenPipeError:
            self.leaving.set()

    def emit(self, event: Event) -> None:
        """Tell an event; where training stands well, leave if that is wanted."""
        self.news()
        now = time.monotonic()
        often = isinstance(event, Progress) and now < self._progress.get(event.cell, 0.0) + PROGRESS_SECONDS
        if isinstance(event, Progress) and not often:
            self._progress[event.cell] = now
        if not isinstance(event, BetweenSteps) and not often:
            self.tell(event=type(event).__name__, **asdict(event))
        if self.leaving.is_set() and not isinstance(event, MIDST):
            raise _Left


class _News:
    """What this process computed of shared work, told to the asker, and what others did, learned from it.

    Cells say what their share of such work took, whoever did it.
    """

    def __init__(self, supply: Supply, pieces: Sequence[Piece], asker: _Asker) -> None:
        self.supply, self.pieces, self.asker = supply, pieces, asker
        self._known, self._unstored = record_of(supply, pieces), ""

    def exchange(self) -> None:
        """Tell what is new here, and learn what was heard."""
        now = record_of(self.supply, self.pieces)
        if now != self._known:
            self.asker.tell(facts=less(now, self._known))
        if self.supply.facts.unstored != self._unstored:
            self._unstored = self.supply.facts.unstored
            self.asker.tell(unstored=self._unstored)
        while not self.asker.heard.empty():
            add_record(self.supply, self.pieces, self.asker.heard.get())
        self._known = record_of(self.supply, self.pieces)


def record_of(supply: Supply, pieces: Sequence[Piece]) -> dict[str, Any]:
    """Return what shared work took so far as JSON data: by piece, by prefix, and what was altered."""
    facts = supply.facts
    return {
        "seconds": [facts.seconds.get(piece, 0.0) for piece in pieces],
        "rows": [facts.computed.get(piece, 0) for piece in pieces],
        "forwards": [prefix.forwards for prefix in supply.prefixes.values()],
        "altered": [facts.altered_chunks],
    }


def less(now: Mapping[str, Any], before: Mapping[str, Any]) -> dict[str, Any]:
    """Return what came to be between two records."""
    return {name: [new - old for new, old in zip(now[name], before[name], strict=True)] for name in now}


def add_record(supply: Supply, pieces: Sequence[Piece], record: Mapping[str, Any], forwards: bool = False) -> None:
    """Count another process's work to what shared work took; ``forwards`` and what was altered only where asked."""
    facts = supply.facts
    for piece, seconds, rows in zip(pieces, record["seconds"], record["rows"], strict=True):
        if rows:
            facts.seconds[piece] = facts.seconds.get(piece, 0.0) + seconds
            facts.computed[piece] = facts.computed.get(piece, 0) + rows
    if forwards:
        for prefix, count in zip(supply.prefixes.values(), record["forwards"], strict=True):
            prefix.forwards += count
        facts.altered_chunks += record["altered"][0]


def main() -> None:
    """Run groups until there is nobody to ask, or this process is asked to leave."""
    for number in (signal.SIGINT, signal.SIGTERM):  # which are the asker's to heed
        signal.signal(number, lambda *_: None)
    told = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what a library may print is no message
    asker = _Asker(os.fdopen(os.dup(sys.stdin.fileno()), "rb"), told)
    try:
        _serve(asker)
    except _Left:
        pass
    except DiskFull as error:
        asker.tell(full=[str(error.path), error.given, error.expected, error.mend])
    except UserError as error:  # not a cell's, whose errors are its own: the run's
        asker.tell(refused=[error.given, error.expected, error.mend])
    except Exception as error:
        asker.tell(broken=f"failed: {type(error).__name__}: {error}")
        traceback.print_exc()
    gc.collect()  # loaders go, and end their processes before this one ends


def _serve(asker: _Asker) -> None:
    briefing = asker.asked.get()
    if briefing is None:
        return
    groups, here = _planned(briefing, asker.emit)
    news = _News(here.supply, list(here.supply.rows), asker)
    asker.news = news.exchange
    while (cells := asker.asked.get()) is not None:
        asker.tell(began=cells)
        here.take({name: groups[name] for name in cells}, 0.0)
        news.exchange()
        asker.tell(ended=cells)
