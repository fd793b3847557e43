"""The report's section on shared work: what the plan stores and predicts, and what the runs measured."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from unfreeze.text import bytes_text, join_words, plural, seconds_text


@dataclass(frozen=True)
class ActivationsView:
    """Planned activations that cells share; ``computed`` (rows) and ``seconds`` are measured, NaN if no run has."""

    name: str
    rows: int
    bytes: int
    built_from: str
    stored: bool
    why_not: str
    cells: int
    computed: float
    seconds: float


@dataclass(frozen=True)
class SharedView:
    """The report's section: a table of activations, and sentences."""

    activations: tuple[ActivationsView, ...]
    sentences: tuple[str, ...]


def shared_work(record: Mapping[str, Any], plan: Mapping[str, Any], facts: Mapping[str, Any]) -> SharedView | None:
    """Return the section on shared work; None for plans without it.

    Args:
        record: study.json.
        plan: plan.json.
        facts: shared.json; empty where nothing has run.
    """
    if "shared" not in plan:
        return None
    runs = facts.get("runs", [])
    sentences = [*_seconds(runs), *_disk(plan, runs), *_engines(record), *_altered(runs), *_why_not(plan)]
    return SharedView(tuple(_activations(planned, runs) for planned in plan["shared"]), tuple(sentences))


def built_from(planned: Mapping[str, Any]) -> str:
    """Return what planned activations are computed from: images, or the stage of other stored activations."""
    found = re.search(r", (after [^,]+)", str(planned["built_from"]))
    return found[1] if found else str(planned["built_from"])


def reuse_text(planned: Mapping[str, Any]) -> str:
    """Return what a planned cell reuses, and why not more; without seeds, so that cells of several seeds are alike."""
    names = list(dict.fromkeys(re.sub(r", seed \d+$", "", name) for name in planned["reuses"]))
    return "; ".join([" + ".join(names) or "nothing", *planned["why_not"]]).replace("nothing; ", "nothing: ", 1)


def _activations(planned: Mapping[str, Any], runs: list[Mapping[str, Any]]) -> ActivationsView:
    own = [piece for run in runs for piece in run["pieces"] if piece["name"] == planned["name"]]
    known = bool(runs)
    return ActivationsView(
        name=planned["name"],
        rows=planned["rows"],
        bytes=planned["bytes"],
        built_from=built_from(planned),
        stored=planned["stored"],
        why_not=planned["why_not"],
        cells=len(planned["cells"]),
        computed=sum(piece["rows"] for piece in own) if known else float("nan"),
        seconds=sum(piece["seconds"] for piece in own) if known else float("nan"),
    )


def _seconds(runs: list[Mapping[str, Any]]) -> Iterable[str]:
    if not runs:
        yield "No run has recorded its time yet."
        return
    predicted = sum(run["predicted_seconds"] for run in runs)
    parts = [run["seconds"] for run in runs]
    scanning, timing = sum(part["scan"] for part in parts), sum(part["calibration"] for part in parts)
    # With --parallel, predicted and measured are sums over processes. Earlier versions recorded only the total.
    measured = sum(part.get("cells", part["total"] - part["scan"] - part["calibration"]) for part in parts)
    yield (
        f"Time: predicted {seconds_text(predicted)}, measured {seconds_text(measured)}{_off(predicted, measured)}, "
        f"plus {seconds_text(scanning)} for scanning the images and {seconds_text(timing)} for timing the networks"
        f"{f', in {len(runs)} runs' if len(runs) > 1 else ''}."
    )


def _disk(plan: Mapping[str, Any], runs: list[Mapping[str, Any]]) -> Iterable[str]:
    predicted = runs[-1]["predicted_disk"] if runs else plan["predictions"]["disk"]
    measured = f", measured {bytes_text(runs[-1]['disk'])}{_off(predicted, runs[-1]['disk'])}" if runs else ""
    pixels = plan["predictions"]["pixel_bytes"]
    yield f"Disk: predicted {bytes_text(predicted)}{measured}; {bytes_text(pixels)} of it for decoded images."
    alone = plan["predictions"]
    yield (
        f"By the last plan, training every cell separately in plain PyTorch takes "
        f"{seconds_text(alone['seconds_alone'])}, {alone['ratio']:.1f} times as long as the study."
    )


def _off(predicted: float, real: float) -> str:
    return f" ({100 * (real / predicted - 1):+.1f} %)" if predicted > 0 else ""


def _engines(record: Mapping[str, Any]) -> Iterable[str]:
    for label, found in record.get("engines", {}).items():
        engine = found["engine"]
        yield (
            f"Frozen stages of {label}: {engine.get('name')} {engine.get('version')} ({engine.get('precision')}), "
            f"relative error against PyTorch {found['error']:.1g}."
        )


def _altered(runs: list[Mapping[str, Any]]) -> Iterable[str]:
    chunks = sum(run["altered_chunks"] for run in runs)
    if chunks:
        were = "was" if chunks == 1 else "were"
        yield f"{plural(chunks, 'stored chunk')} {were} unreadable or altered, and {were} computed again."
    unstored = [run["unstored"] for run in runs if run.get("unstored")]
    if unstored:
        yield (
            f"{plural(len(unstored), 'run')} could not write to the cache and computed frozen stages in every epoch: "
            f"{unstored[-1]}."
        )


def _why_not(plan: Mapping[str, Any]) -> Iterable[str]:
    """Return for each strategy why its cells reuse nothing, or not everything."""
    cells = {cell["cell"]: cell for cell in plan["cells"]}
    found: dict[tuple[str, str], list[str]] = {}
    for planned in plan["reuse"]:
        if planned["why_not"]:
            cell = cells[planned["cell"]]
            part = "" if planned["reuses"] else "reuses nothing: "
            found.setdefault((cell["strategy"], part + "; ".join(planned["why_not"])), []).append(cell["regime"])
    for (strategy, text), regimes in found.items():
        yield f"{strategy} with {join_words(list(dict.fromkeys(regimes)))}: {text}."
