"""The rows of the comparison: which measurements each needs, its figure in one round, and the table of all."""

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

Measured = Mapping[str, Any]
"""One measurement: name, round, seconds and what else it found."""
Round = Mapping[str, Measured]
"""The measurements of one round by name."""

GRID = {"head": 3, "last_block": 3}


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        name: for --only.
        what: what is compared.
        parts: the measurements it needs, all of one round.
        figure: its figure in one round.
        seconds: text of one round's times or amounts.
        at: whether `floor` is the least or the most that is asked for.
        floor: None where nothing is asked.
        form: how the figure is written.
    """

    name: str
    what: str
    parts: tuple[str, ...]
    figure: Callable[[Round], float]
    seconds: Callable[[Round], str]
    at: Literal["at least", "at most"] = "at least"
    floor: float | None = None
    form: str = "{:.1f}x"

    def met(self, value: float) -> bool:
        """Say whether a figure is what is asked for."""
        return self.floor is None or (value >= self.floor if self.at == "at least" else value <= self.floor)


def peer_seconds(measured: Measured, epochs: int) -> float:
    """Return a peer's whole process for so many epochs: measured, or with epochs added or taken away.

    All epochs of a peer do the same work; the first also warms up, so what is added is the median of the others.
    """
    ran = measured["epochs"]
    return measured["seconds"] + (epochs - len(ran)) * statistics.median(ran[1:] or ran)


def _against(name: str, what: str, floor: float, ours: str, peers: Mapping[str, tuple[int, int]]) -> Row:
    """Compare a run of unfreeze with peers: by measurement, epochs and how many such runs."""

    def total(found: Round) -> float:
        return sum(times * peer_seconds(found[peer], epochs) for peer, (epochs, times) in peers.items())

    def seconds(found: Round) -> str:
        text = f"{found[ours]['seconds']:.1f} against {total(found):.0f}"
        scaled = [
            f"{peer} {len(found[peer]['epochs'])} of {epochs} epochs run, scaled"
            for peer, (epochs, _) in peers.items()
            if len(found[peer]["epochs"]) != epochs
        ]
        runs = sum(times for _, times in peers.values())
        scaled += [f"{len(peers)} of {runs} runs made, multiplied"] if runs > len(peers) else []
        return text + (f" ({'; '.join(scaled)})" if scaled else "")

    return Row(name, what, (ours, *peers), lambda found: total(found) / found[ours]["seconds"], seconds, floor=floor)


def _bound(strategy: str) -> Row:
    ours, bare = f"unfreeze_{strategy}_10", f"bound_{strategy}"

    def seconds(found: Round) -> str:
        least = found[bare]
        forward, steps, validation = least["forward"], least["steps"], least["validation"]
        parts = f"{forward:.1f} {least['engine']} + {steps:.1f} steps; validating, not counted, {validation:.1f}"
        return f"{found[ours]['study_seconds']:.1f} against {least['seconds']:.1f} ({parts})"

    return Row(
        f"bound_{strategy}",
        f"`{strategy}`, 10 epochs, without imports and calibration, over the bound",
        (ours, bare),
        lambda found: found[ours]["study_seconds"] / found[bare]["seconds"],
        seconds,
        "at most",
        1.2,
        "{:.2f}x",
    )


def _extraction(backbone: str, label: str) -> Row:
    part = f"extraction_{backbone}"

    def seconds(found: Round) -> str:
        ours, eager = (statistics.median(found[part][side]) for side in ("unfreeze", "eager"))
        return f"{ours:.2f} against {eager:.2f}, 256 images"

    what = f"frozen {label} extraction against eager channels-last PyTorch"
    return Row(part, what, (part,), lambda found: found[part]["ratio"], seconds, floor=1.6)


def _predicted(kind: Literal["disk", "seconds"], ours: str, what: str) -> Row:
    predicted = f"predicted_{kind}"
    real, unit, scale = ("disk", "MB", 1e6) if kind == "disk" else ("study_seconds", "s", 1.0)

    def figure(found: Round) -> float:
        return 100 * (found[ours][predicted] / found[ours][real] - 1)

    def text(found: Round) -> str:
        return f"{found[ours][predicted] / scale:.1f} {unit} predicted, {found[ours][real] / scale:.1f} real"

    name = f"{kind}_{ours.removeprefix('unfreeze_')}"
    if kind == "seconds":
        return Row(
            name,
            f"predicted seconds against real, without imports and calibration, {what}",
            (ours,),
            figure,
            text,
            form="{:+.0f} %",
        )
    words = f"predicted disk off real, {what}"
    return Row(name, words, (ours,), lambda found: abs(figure(found)), text, "at most", 2, "{:.2f} %")


def _all_rows() -> list[Row]:
    keras, plain, fast = "Keras", "plain PyTorch", "plain PyTorch channels-last"
    floors = {
        "head": {"keras": (keras, 9.5), "plain": (plain, 9.5), "channels_last": (fast, 7)},
        "last_block": {"keras": (keras, 4.3), "plain": (plain, 4), "channels_last": (fast, 2.8)},
    }
    rows = []
    for strategy, peers in floors.items():
        for peer, (label, floor) in peers.items():
            what = f"`{strategy}`, 10 epochs, against {label}"
            name, ours = f"{strategy}_{peer}", f"unfreeze_{strategy}_10"
            rows.append(_against(name, what, floor, ours, {f"{peer}_{strategy}": (10, 1)}))
    what = "`head`, 30 epochs, against Keras"
    rows.insert(3, _against("head_30_keras", what, 20, "unfreeze_head_30", {"keras_head": (30, 1)}))
    what = "`head` + `last_block`, 3 seeds each with their own subsets, 10 epochs, against each alone in plain PyTorch"
    alone = {f"plain_{strategy}": (10, times) for strategy, times in GRID.items()}
    rows.append(_against("seeds", what, 7.5, "unfreeze_seeds", alone))
    what = "`head` with 20 learning rates and 3 seeds against the same in plain PyTorch (one run, times 60)"
    rows.append(_against("rates", what, 40, "unfreeze_rates", {"plain_head": (10, 60)}))
    second = ("unfreeze_head_10", "second_study")
    rows.append(
        Row(
            "second_forwards",
            "second study on the same images and backbone with other heads: images through the frozen network",
            second,
            lambda found: found["second_study"]["forwards"],
            lambda found: f"{found['second_study']['seconds']:.1f} in all after imports",
            "at most",
            0,
            "{:.0f}",
        )
    )
    rows.append(
        Row(
            "second_first_step",
            "the same: from the end of imports to the end of the first step",
            second,
            lambda found: found["second_study"]["first_step"],
            lambda found: f"imports {found['second_study']['imports']:.1f}",
            "at most",
            3,
            "{:.1f} s",
        )
    )
    rows += [_bound("head"), _bound("last_block")]
    rows += [_extraction("tf_efficientnet_lite0", "EfficientNet-Lite0"), _extraction("resnet50", "ResNet-50")]
    rows.append(
        Row(
            "memory",
            "anonymous memory with 20,000 images over that with 1,000 (test_resnet)",
            ("memory_1000", "memory_20000"),
            lambda found: (found["memory_20000"]["anonymous"] - found["memory_1000"]["anonymous"]) / 1e6,
            lambda found: " and ".join(f"{found[f'memory_{n}']['anonymous'] / 1e6:.0f} MB" for n in (1000, 20000)),
            "at most",
            100,
            "{:.0f} MB",
        )
    )
    runs = {"head_10": "`head`", "last_block_10": "`last_block`", "seeds": "3 seeds", "rates": "20 rates, 3 seeds"}
    for kind in ("disk", "seconds"):
        rows += [_predicted(kind, f"unfreeze_{run}", what) for run, what in runs.items()]
    return rows


ROWS = _all_rows()


def rounds_of(run: Mapping[str, Any]) -> dict[int, dict[str, Measured]]:
    """Return a run's measurements by round and name, without those that failed."""
    found: dict[int, dict[str, Measured]] = {}
    for measured in run["measurements"]:
        if "error" not in measured:
            found.setdefault(measured["round"], {})[measured["name"]] = measured
    return found


def latest(row: Row, runs: Mapping[str, Mapping[str, Any]]) -> tuple[str, list[Round]]:
    """Return the latest run with all parts of a row, and its rounds that have them; ("", []) if there is none.

    Figures never mix runs: both sides of a ratio saw the machine in the same mood.
    """
    for name in sorted(runs, reverse=True):
        rounds = [found for found in rounds_of(runs[name]).values() if _complete(row, found)]
        if rounds:
            return name, rounds
    return "", []


def _complete(row: Row, found: Round) -> bool:
    if not all(part in found for part in row.parts):
        return False
    try:
        row.figure(found)
    except TypeError:  # the study did not record it: None
        return False
    return True


def table(runs: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the rows and the accuracies as Markdown."""
    lines = ["| what | asked | found: median [min .. max] | seconds (median round) |", "| --- | --- | --- | --- |"]
    for row in ROWS:
        _, rounds = latest(row, runs)
        if not rounds:
            continue
        asked = "" if row.floor is None else f"{row.at} {row.form.format(row.floor)}"
        figures = [row.figure(found) for found in rounds]
        middle = sorted(rounds, key=row.figure)[len(rounds) // 2]
        low, median, high = map(row.form.format, (min(figures), statistics.median(figures), max(figures)))
        verdict = "" if row.met(statistics.median(figures)) else " **not met**"
        lines.append(f"| {row.what} | {asked} | {median} [{low} .. {high}]{verdict} | {row.seconds(middle)} |")
    return "\n".join([*lines, "", *_accuracies(runs)])


def _accuracies(runs: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return, for each strategy, the sides' validation accuracies at the last epoch that all of them reached."""
    lines = ["| strategy, epoch | side | validation accuracy: mean [min .. max] | by seed | unfreeze against it |"]
    lines.append("| --- | --- | --- | --- | --- |")
    for strategy in ("head", "last_block"):
        sides = {
            "unfreeze": f"unfreeze_{strategy}_10",
            "Keras": f"keras_{strategy}",
            "plain PyTorch": f"plain_{strategy}",
            "channels-last": f"channels_last_{strategy}",
        }
        offered = [_curves(run, sides) for _, run in sorted(runs.items(), reverse=True)]
        curves = max(offered, key=len, default={})  # of those with as many sides the latest
        if len(curves) < 2 or "unfreeze" not in curves:
            continue
        epoch = min(len(curve) for found in curves.values() for curve in found.values())
        reached = {side: {n: curve[epoch - 1] for n, curve in found.items()} for side, found in curves.items()}
        for side, found in reached.items():
            against = "" if side == "unfreeze" else _difference(reached["unfreeze"], found)
            lines.append(f"| `{strategy}`, {epoch} | {side} | {_spread(list(found.values()))} | {against} |")
    return lines


def _curves(run: Mapping[str, Any], sides: Mapping[str, str]) -> dict[str, dict[int, Sequence[float]]]:
    """Return validation accuracy by epoch, by round, by side, of the sides that a run has."""
    rounds = rounds_of(run)
    curves = {
        side: {number: _curve(found[part]) for number, found in rounds.items() if part in found}
        for side, part in sides.items()
    }
    return {side: found for side, found in curves.items() if found}


def _difference(ours: Mapping[int, float], theirs: Mapping[int, float]) -> str:
    """Say how far unfreeze is off on the same splits, and whether that is worse than the seeds' spread."""
    both = ours.keys() & theirs.keys()
    if not both:
        return ""
    difference = statistics.mean(ours[number] - theirs[number] for number in both)
    spread = max(max(side.values()) - min(side.values()) for side in (ours, theirs))
    if len(both) == 1:
        return f"{difference:+.3f}, one seed"
    verdict = "**below the spread" if difference < -spread else "not below the spread"
    return f"{difference:+.3f}, {verdict} of {len(both)} seeds, {spread:.3f}" + ("**" if difference < -spread else "")


def _curve(measured: Measured) -> Sequence[float]:
    """Return the validation accuracy by epoch; a study of one cell has one curve."""
    found = measured["val_accuracy"]
    return next(iter(found.values()), ()) if isinstance(found, dict) else found


def _spread(values: Sequence[float]) -> str:
    listed = ", ".join(f"{value:.3f}" for value in values)
    return f"{statistics.mean(values):.3f} [{min(values):.3f} .. {max(values):.3f}] | {listed}"
