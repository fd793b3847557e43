"""The report's section on the shipped model: numbers from its stored predictions, pictures from ``explain/``."""

import base64
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from unfreeze import metrics
from unfreeze import text as words
from unfreeze.report.figures import confusion_figure, confusion_sizes, reliability_figure
from unfreeze.statistics import model_quality as quality
from unfreeze.statistics.intervals import wilson_interval
from unfreeze.storage.records import is_whole, read_json, read_table
from unfreeze.storage.study_dir import StudyDir

PAIRS = 10
"""Number of most confused pairs listed."""


@dataclass(frozen=True)
class BestModelView:
    """Contents of the section.

    Attributes:
        cell: id of the model's cell.
        lead: introductory sentences.
        notes: caveats.
        figures: plotly figures as JSON data, by name.
        confusion_style: CSS of the confusion matrix's box.
        confusion_scrolls: whether the matrix may be wider than the page.
        ordered: whether its classes are ordered by how often they are confused.
        pairs: most confused pairs: label, predicted, images, share, low, high.
        classes: one row per class, the lowest recall first: name and the columns of ``class_scores``.
        calibration: sentences on calibration error and temperature.
        wrong, suspects: worst mistakes and label issues, with their pictures as data URIs.
        wrong_of, suspects_of: number of mistakes, and of images searched for label issues.
        grad_cam: sentence on the Grad-CAM pictures; "" without them.
        has_pictures: whether ``explain/`` belongs to this model.
    """

    cell: str
    lead: str
    notes: tuple[str, ...]
    figures: dict[str, dict[str, Any]]
    confusion_style: str
    confusion_scrolls: bool
    ordered: bool
    pairs: tuple[dict[str, Any], ...]
    classes: tuple[dict[str, Any], ...]
    calibration: str
    wrong: tuple[dict[str, Any], ...]
    wrong_of: int
    suspects: tuple[dict[str, Any], ...]
    suspects_of: int
    grad_cam: str
    has_pictures: bool


def best_model_view(
    study: StudyDir, cell: str | None, results: pd.DataFrame, record: Mapping[str, Any]
) -> BestModelView | None:
    """Return the section on the shipped model; None without a model or finite predictions.

    Args:
        study: the study directory.
        cell: id of the model's cell.
        results: the table of ``results_table``.
        record: study.json.
    """
    if cell is None or not (study.cell(cell) / "logits.safetensors").is_file():
        return None
    classes = [str(label) for label in record["classes"]]
    scored = quality.read_scored(study, cell, classes)
    role = "test" if "test" in scored else "validation"
    if role not in scored:
        return None
    shown, validation = scored[role], scored.get("validation")
    counts = quality.confusion(shown)
    ordered = len(classes) > 12
    order = quality.similar_order(counts) if ordered else list(range(len(classes)))
    figures = {"confusion": confusion_figure(counts, classes, order).to_plotly_json()}
    calibration, calibrated = _calibration(shown, validation, role)
    figures |= calibrated
    explained = _explained(study, cell)
    row = results[results["cell"] == cell].iloc[0]
    _, least, most = confusion_sizes(len(classes))
    return BestModelView(
        cell=cell,
        lead=_lead(row, len(shown.ids), role),
        notes=tuple(_notes(study, record, shown, role, explained)),
        figures=figures,
        confusion_style=f"min-width:{least}px;max-width:{most}px",
        confusion_scrolls=least > 0,
        ordered=ordered,
        pairs=tuple(_pair(counts, classes, *pair) for pair in quality.most_confused(counts, PAIRS)),
        classes=tuple(_class_rows(counts, classes)),
        calibration=calibration,
        wrong=tuple(_picture(study, one) for one in explained.get("wrong", [])),
        wrong_of=int((shown.predicted != shown.labels).sum()),
        suspects=tuple(_picture(study, one) for one in explained.get("suspects", [])),
        suspects_of=len(quality.pooled(scored)[0].ids),
        grad_cam=_grad_cam(explained),
        has_pictures=bool(explained.get("complete")),
    )


def _lead(row: pd.Series, images: int, role: str) -> str:
    run = f"seed {int(row['seed'])}" + ("" if pd.isna(row["fold"]) else f", fold {int(row['fold'])}")
    return (
        f"{row['strategy']} with {row['regime']}, {run}: the recommended recipe's first seed, not its best one. "
        f"Numbers are from {words.plural(images, f'{role} image')}."
    )


def _notes(
    study: StudyDir, record: Mapping[str, Any], shown: quality.ScoredImages, role: str, explained: Mapping[str, Any]
) -> list[str]:
    notes = []
    if role == "validation":
        notes.append("There are no test images. These images selected the model, so all numbers here are optimistic.")
    elif (record["study"].get("split") or {}).get("val") == "test":
        notes.append("The test images also selected the model and its temperature, so all numbers here are optimistic.")
    catalog = read_table(study.path / "catalog.csv").drop_duplicates("id").set_index("id")
    if "group" in catalog and (catalog.loc[list(shown.ids), "group"].fillna("") != "").any():
        notes.append(
            "Intervals in this section treat images as independent, which images of one group are not, so they are too "
            "narrow."
        )
    if explained.get("note"):
        missing, end = ("Grad-CAM", ".") if explained["complete"] else ("pictures", "")
        notes.append(f"No {missing}: {explained['note']}{end}")
    return notes


def _calibration(
    shown: quality.ScoredImages, validation: quality.ScoredImages | None, role: str
) -> tuple[str, dict[str, dict[str, Any]]]:
    before = quality.reliability(shown)
    figures = {"reliability-before": reliability_figure(before).to_plotly_json()}
    error = metrics.score("ece", shown.logits, shown.labels)
    loss = metrics.loss(shown.logits, shown.labels)
    as_trained = f"As trained, the expected calibration error is {100 * error:.1f} points and the log loss {loss:.3f}."
    if validation is None:
        return f"{as_trained} Temperature scaling is not applied, because there are no validation images.", figures
    temperature = quality.fit_temperature(validation)
    images = words.plural(len(validation.ids), "validation image")
    if quality.is_at_bound(temperature):
        return (
            f"{as_trained} Temperature scaling is not applied, because {images} do not determine a temperature: the "
            "fit ends at its bound."
        ), figures
    scaled = quality.with_temperature(shown, temperature)
    after, better = quality.reliability(scaled), metrics.score("ece", scaled.logits, scaled.labels)
    figures["reliability-after"] = reliability_figure(after).to_plotly_json()
    calibration = "overconfident" if temperature > 1.1 else "underconfident" if temperature < 0.9 else "well calibrated"
    return (
        f"{as_trained} On {images} the model is {calibration}: temperature scaling (logits divided by "
        f"{temperature:.2f}, fitted there for the lowest log loss) gives {100 * better:.1f} points and "
        f"{metrics.loss(scaled.logits, scaled.labels):.3f} on the {role} images. Predicted classes stay the same, only "
        "their probabilities change."
    ), figures


def _pair(counts: quality.Counts, classes: list[str], label: int, predicted: int, images: int) -> dict[str, Any]:
    of = int(counts[label].sum())
    low, high = wilson_interval(images / of, of)
    names = {"label": classes[label], "predicted": classes[predicted]}
    return names | {"images": images, "of": of, "share": images / of, "low": low, "high": high}


def _class_rows(counts: quality.Counts, classes: list[str]) -> list[dict[str, Any]]:
    table = quality.class_scores(counts)
    table["name"] = classes
    return [{str(key): value for key, value in row.items()} for row in table.sort_values("recall").to_dict("records")]


def _explained(study: StudyDir, cell: str) -> dict[str, Any]:
    """Return explain.json if it is complete and belongs to this model, else an empty dict."""
    path = study.path / "explain" / "explain.json"
    if not is_whole(path):
        return {}
    record = read_json(path)
    same = (cell, read_json(study.cell(cell) / "cell.json")["fingerprint"]) == (record["cell"], record["fingerprint"])
    return record if same else {}


def _picture(study: StudyDir, record: Mapping[str, Any]) -> dict[str, Any]:
    return {**record, **{kind: _data_uri(study.path / "explain", record[kind]) for kind in ("picture", "overlay")}}


def _data_uri(folder: Path, name: str) -> str:
    """Return a picture as a data URI; "" if there is none."""
    path = folder / Path(name).name
    if not name or not path.is_file():
        return ""
    return "data:image/webp;base64," + base64.b64encode(path.read_bytes()).decode()


def _grad_cam(explained: Mapping[str, Any]) -> str:
    place = explained.get("map")
    if not place or math.isnan(place["side"]):
        return ""
    side = place["side"]
    return (
        f"The picture on the right is a Grad-CAM: brighter places contributed more to the predicted class, by the "
        f"feature map after {place['stage']} ({side} × {side} positions)."
    )
