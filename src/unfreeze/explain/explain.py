"""Explain the best model: its worst mistakes with Grad-CAM pictures, and labels to review."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from plotly.colors import convert_colors_to_same_type, get_colorscale, unlabel_rgb
from torch import Tensor

from unfreeze.data.catalog import Catalog, keys_of, paths_of, rows_of
from unfreeze.data.image_file import quiet_pillow
from unfreeze.errors import UserError
from unfreeze.events import Emit, Preparing, Warned
from unfreeze.explain.gradcam import FeatureMap, NoFeatureMap, find_place, grad_cam
from unfreeze.inputs.augment import ViewDataset, plain
from unfreeze.inputs.preprocess import DecodedPictures
from unfreeze.metrics import Logits
from unfreeze.statistics.model_quality import Scored, most_wrong, pooled, read_scored, suspects
from unfreeze.storage.atomic import DiskFull, replacing
from unfreeze.storage.records import is_whole, read_json, sealed, write_json
from unfreeze.storage.study_dir import StudyDir
from unfreeze.train.device import Compute
from unfreeze.train.finished import FinishedModel, check_logits, load_finished

RULES = 1
"""Counts up whenever the same model would be shown otherwise."""

MOST = 24
"""Images of each kind that are shown."""

LONGEST = 144
"""Pixels of a picture's side: some 4 KB each, 72 of them under half a megabyte."""

BATCH = 8
WORDS = "looking into the best model"

ERRORS = (UserError, RuntimeError)
"""What a model that cannot be explained raises: a mistake that the message says how to fix, or PyTorch, which has one
error for shapes, operations and memory that are not to be had."""


@dataclass(frozen=True)
class ExplainedImage:
    """Images as a network sees them: pixels uint8 (S, S, 3) each, and its normalised inputs float32 (N, 3, S, S)."""

    pixels: list[np.ndarray]
    inputs: Tensor


def explain(store: StudyDir, cell: str | None, catalog: Catalog, compute: Compute, emit: Emit) -> None:
    """Write ``explain/`` of the study's model to take away, unless it is there: pictures, then explain.json.

    A model that cannot be explained costs the report its pictures, never the study its results: the reason becomes a
    warning and the note of explain.json, and the next run tries again.

    Args:
        store: the study directory.
        cell: the model's; None where nothing has finished.
        catalog: the images.
        compute: device and precision.
        emit: is told what happens.
    """
    if cell is None or _is_current(store, cell):
        return
    folder = store.path / "explain"
    about = {"rules": RULES, "cell": cell, "fingerprint": read_json(store.cell(cell) / "cell.json")["fingerprint"]}
    try:
        found = _explanation(store, cell, catalog, compute, emit)
    except DiskFull:
        raise
    except ERRORS as error:
        text = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
        emit(Warned(f"no pictures of the best model: {text}"))
        shutil.rmtree(folder, ignore_errors=True)
        found = {"complete": False, "note": text, "map": None, "wrong": [], "suspects": []}
    shown = [*found["wrong"], *found["suspects"]]
    names = sorted(one[kind] for one in shown for kind in ("picture", "overlay") if one[kind])
    write_json(folder / "explain.json", about | found | {"files": sealed(folder, names)})
    for path in folder.glob("*.webp"):
        if path.name not in names:  # of the best model before
            path.unlink(missing_ok=True)


def _is_current(store: StudyDir, cell: str) -> bool:
    path = store.path / "explain" / "explain.json"
    if not is_whole(path):
        return False
    record, now = read_json(path), read_json(store.cell(cell) / "cell.json")["fingerprint"]
    return record["complete"] and (record["rules"], record["cell"], record["fingerprint"]) == (RULES, cell, now)


def _explanation(store: StudyDir, cell: str, catalog: Catalog, compute: Compute, emit: Emit) -> dict[str, Any]:
    classes = list(catalog.classes)
    scored = read_scored(store, cell, classes)
    shown = scored.get("test", scored.get("validation"))
    if shown is None:
        return {"complete": True, "note": "its predictions are not finite", "map": None, "wrong": [], "suspects": []}
    together, splits = pooled(scored)
    wrong, doubtful = most_wrong(shown, MOST), suspects(together)[:MOST]
    total, done = len(wrong) + len(doubtful), 0
    emit(Preparing(WORDS, 0, total))
    finished = load_finished(store, cell)
    finished.network.to(compute.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    place, note = _place(finished, compute)
    records: dict[str, list[dict[str, Any]]] = {"wrong": [], "suspects": []}
    for kind, source, places in (("wrong", shown, wrong), ("suspects", together, doubtful)):
        for first in range(0, len(places), BATCH):
            some = places[first : first + BATCH]
            looked = _look(finished, catalog, [source.ids[one] for one in some])
            check_logits(finished, looked.inputs, source.logits[some], compute)
            cams = _cams(finished, place, looked, source.logits[some], compute) if kind == "wrong" else None
            for number, one in enumerate(some):
                name = f"{kind}-{first + number + 1:02}"
                record = _record(source, one, catalog, classes) | {"picture": f"{name}.webp", "overlay": ""}
                record["split"] = splits[one] if kind == "suspects" else "test" if "test" in scored else "validation"
                _save(store.path / "explain" / record["picture"], looked.pixels[number])
                if cams is not None:
                    record["overlay"] = f"{name}-cam.webp"
                    _save(store.path / "explain" / record["overlay"], overlay(looked.pixels[number], cams[number]))
                records[kind].append(record)
            done += len(some)
            emit(Preparing(WORDS, done, total))
    where = None if place is None else {"stage": place.stage, "side": place.side}
    return {"complete": True, "note": note, "map": where, **records}


def _place(finished: FinishedModel, compute: Compute) -> tuple[FeatureMap | None, str]:
    size = finished.preprocessing.image_size
    try:
        return find_place(finished.backbone, compute.move(torch.zeros(1, 3, size, size))), ""
    except NoFeatureMap as error:
        return None, str(error)


def _cams(
    finished: FinishedModel, place: FeatureMap | None, looked: ExplainedImage, logits: Logits, compute: Compute
) -> np.ndarray | None:
    if place is None:
        return None
    targets = torch.from_numpy(logits.argmax(axis=1)).to(compute.device)
    return grad_cam(finished.backbone, finished.network.head, place, compute.move(looked.inputs), targets)


def _look(finished: FinishedModel, catalog: Catalog, ids: Sequence[str]) -> ExplainedImage:
    shas = keys_of(catalog, ids)
    pictures = DecodedPictures(paths_of(catalog, ids), shas, finished.preprocessing.base)
    with quiet_pillow():
        bases = [pictures[number] for number in range(len(ids))]
    views = ViewDataset(bases, shas, finished.preprocessing, "none", 0)
    pixels = [plain(base, finished.preprocessing) for base in bases]
    return ExplainedImage(pixels, torch.stack([views[number, 0][0] for number in range(len(ids))]))


def _record(scored: Scored, place: int, catalog: Catalog, classes: Sequence[str]) -> dict[str, Any]:
    name, shares = scored.ids[place], scored.probabilities[place]
    label, predicted = int(scored.labels[place]), int(scored.predicted[place])
    return {
        "id": name,
        "path": str(rows_of(catalog, [name])["path"].iloc[0]),
        "label": classes[label],
        "predicted": classes[predicted],
        "label_probability": float(shares[label]),
        "probability": float(shares[predicted]),
    }


def overlay(pixels: np.ndarray, cam: np.ndarray) -> np.ndarray:
    """Lay a Grad-CAM over a picture.

    The picture becomes grey and the map its colour, from dark violet over orange to yellow: as lightness rises with the
    value, it reads without colours too.

    Args:
        pixels: uint8 (S, S, 3).
        cam: float32 (side, side), 0 to 1.

    Returns:
        uint8 (S, S, 3).
    """
    size = pixels.shape[1], pixels.shape[0]
    smooth = np.asarray(Image.fromarray(cam.astype(np.float32)).resize(size, Image.Resampling.BICUBIC)).clip(0, 1)
    colours, _ = convert_colors_to_same_type([colour for _, colour in get_colorscale("Inferno")])
    stops = np.array([unlabel_rgb(colour) for colour in colours])
    heat = np.stack([np.interp(smooth, np.linspace(0, 1, len(stops)), stops[:, channel]) for channel in range(3)], -1)
    grey = np.asarray(Image.fromarray(pixels).convert("L"))[..., None]
    return (0.5 * grey + 0.5 * heat).round().astype(np.uint8)


def _save(path: Path, pixels: np.ndarray) -> None:
    picture = Image.fromarray(np.ascontiguousarray(pixels))
    picture.thumbnail((LONGEST, LONGEST))
    with replacing(path) as temporary:
        picture.save(temporary, "WEBP", quality=70)
