"""Write pictures of the recommended model: its worst mistakes with Grad-CAM, and images whose label may be wrong."""

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
from unfreeze.explain.gradcam import FeatureMap, NoFeatureMap, find_feature_map, grad_cam
from unfreeze.inputs.augment import ViewDataset, plain
from unfreeze.inputs.preprocess import DecodedPictures
from unfreeze.metrics import Logits
from unfreeze.statistics.model_quality import ScoredImages, label_issues, pooled, read_scored, worst_mistakes
from unfreeze.storage.atomic import DiskFull, replacing
from unfreeze.storage.records import is_whole, read_json, sealed, write_json
from unfreeze.storage.study_dir import StudyDir
from unfreeze.train.device import Compute
from unfreeze.train.finished import FinishedModel, check_logits, load_finished

RULES = 1
"""Version of what is written; a higher one makes the pictures of older directories stale."""

MOST = 24
"""Most images of each kind."""

LONGEST = 144
"""Most pixels of a picture's side; a picture takes about 4 kB, so 72 of them take under half a megabyte."""

BATCH = 8
WORDS = "explaining the recommended model"

ERRORS = (UserError, RuntimeError)
"""Errors that cost the report its pictures: a user error with its fix, or PyTorch's error for unsupported shapes and
operations and for memory."""


@dataclass(frozen=True)
class NetworkImages:
    """Images as the network sees them: pixels uint8 (S, S, 3) each, and normalised inputs float32 (N, 3, S, S)."""

    pixels: list[np.ndarray]
    inputs: Tensor


def explain(store: StudyDir, cell: str | None, catalog: Catalog, compute: Compute, emit: Emit) -> None:
    """Write ``explain/`` of a study's recommended model, pictures first, then explain.json, unless it is up to date.

    If the model cannot be explained, the reason becomes a warning and the note of explain.json, the report has no
    pictures, and the next run tries again.

    Args:
        store: the study directory.
        cell: id of the model's cell; None where nothing has finished.
        catalog: the images.
        compute: device and precision.
        emit: called with events.
    """
    if cell is None or _is_current(store, cell):
        return
    folder = store.path / "explain"
    identity = {"rules": RULES, "cell": cell, "fingerprint": read_json(store.cell(cell) / "cell.json")["fingerprint"]}
    try:
        found = _explanation(store, cell, catalog, compute, emit)
    except DiskFull:
        raise
    except ERRORS as error:
        text = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
        emit(Warned(f"the recommended model has no pictures in the report: {text}"))
        shutil.rmtree(folder, ignore_errors=True)
        found = {"complete": False, "note": text, "map": None, "wrong": [], "suspects": []}
    shown = [*found["wrong"], *found["suspects"]]
    names = sorted(one[kind] for one in shown for kind in ("picture", "overlay") if one[kind])
    write_json(folder / "explain.json", identity | found | {"files": sealed(folder, names)})
    for path in folder.glob("*.webp"):
        if path.name not in names:  # left by an earlier model
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
    all_images, splits = pooled(scored)
    wrong, suspects = worst_mistakes(shown, MOST), label_issues(all_images)[:MOST]
    total, done = len(wrong) + len(suspects), 0
    emit(Preparing(WORDS, 0, total))
    finished = load_finished(store, cell)
    finished.network.to(compute.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    feature_map, note = _feature_map(finished, compute)
    records: dict[str, list[dict[str, Any]]] = {"wrong": [], "suspects": []}
    for kind, source, positions in (("wrong", shown, wrong), ("suspects", all_images, suspects)):
        for first in range(0, len(positions), BATCH):
            batch = positions[first : first + BATCH]
            images = _network_images(finished, catalog, [source.ids[one] for one in batch])
            check_logits(finished, images.inputs, source.logits[batch], compute)
            cams = _cams(finished, feature_map, images, source.logits[batch], compute) if kind == "wrong" else None
            for number, one in enumerate(batch):
                name = f"{kind}-{first + number + 1:02}"
                record = _record(source, one, catalog, classes) | {"picture": f"{name}.webp", "overlay": ""}
                record["split"] = splits[one] if kind == "suspects" else "test" if "test" in scored else "validation"
                _save(store.path / "explain" / record["picture"], images.pixels[number])
                if cams is not None:
                    record["overlay"] = f"{name}-cam.webp"
                    _save(store.path / "explain" / record["overlay"], overlay(images.pixels[number], cams[number]))
                records[kind].append(record)
            done += len(batch)
            emit(Preparing(WORDS, done, total))
    shape = None if feature_map is None else {"stage": feature_map.stage, "side": feature_map.side}
    return {"complete": True, "note": note, "map": shape, **records}


def _feature_map(finished: FinishedModel, compute: Compute) -> tuple[FeatureMap | None, str]:
    size = finished.preprocessing.image_size
    try:
        return find_feature_map(finished.backbone, compute.move(torch.zeros(1, 3, size, size))), ""
    except NoFeatureMap as error:
        return None, str(error)


def _cams(
    finished: FinishedModel, feature_map: FeatureMap | None, images: NetworkImages, logits: Logits, compute: Compute
) -> np.ndarray | None:
    if feature_map is None:
        return None
    targets = torch.from_numpy(logits.argmax(axis=1)).to(compute.device)
    return grad_cam(finished.backbone, finished.network.head, feature_map, compute.move(images.inputs), targets)


def _network_images(finished: FinishedModel, catalog: Catalog, ids: Sequence[str]) -> NetworkImages:
    shas = keys_of(catalog, ids)
    pictures = DecodedPictures(paths_of(catalog, ids), shas, finished.preprocessing.base)
    with quiet_pillow():
        bases = [pictures[number] for number in range(len(ids))]
    views = ViewDataset(bases, shas, finished.preprocessing, "none", 0)
    pixels = [plain(base, finished.preprocessing) for base in bases]
    return NetworkImages(pixels, torch.stack([views[number, 0][0] for number in range(len(ids))]))


def _record(scored: ScoredImages, position: int, catalog: Catalog, classes: Sequence[str]) -> dict[str, Any]:
    name, probabilities = scored.ids[position], scored.probabilities[position]
    label, predicted = int(scored.labels[position]), int(scored.predicted[position])
    return {
        "id": name,
        "path": str(rows_of(catalog, [name])["path"].iloc[0]),
        "label": classes[label],
        "predicted": classes[predicted],
        "label_probability": float(probabilities[label]),
        "probability": float(probabilities[predicted]),
    }


def overlay(pixels: np.ndarray, cam: np.ndarray) -> np.ndarray:
    """Overlay an image with a Grad-CAM.

    The image becomes grey, the map gives the colour, from dark violet over orange to yellow. Lightness rises with the
    value, so the overlay can be read without colour vision.

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
