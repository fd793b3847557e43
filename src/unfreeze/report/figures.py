"""Plotly figures of the report.

Colours are CSS variables (``var(--train)``), which the page's script replaces by those of the light or dark theme.
Names are escaped, because plotly interprets its texts as a subset of HTML.
"""

import html
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from unfreeze.metrics import METRICS, estimate_text
from unfreeze.statistics.learning_curve import Curve
from unfreeze.statistics.model_quality import Counts, row_shares
from unfreeze.statistics.predictions import Recipe
from unfreeze.statistics.tables import chosen_history
from unfreeze.text import seconds_text

PALETTE_SIZE = 7
_ROLES = {"train": "training", "validation": "validation"}
_POINTS_UP_TO = 12  # epochs; so few get markers, without which a single epoch would be invisible


def grid_figures(results: pd.DataFrame, history: pd.DataFrame) -> dict[Recipe, go.Figure]:
    """Return for each recipe with a history accuracy and loss by epoch, one thin line per run.

    All figures have the same ranges. A ring marks each run's best epoch on its validation line; dotted lines separate
    phases. The loss axis is logarithmic where one run would otherwise flatten the others.
    """
    shown = chosen_history(results, history)
    if shown.empty:
        return {}
    last = int(shown["epoch"].max())
    epochs_axis: dict[str, object] = {"range": [0, last * 1.02], "nticks": 7}
    if last <= _POINTS_UP_TO:
        epochs_axis = {"range": [0.5, last + 0.5], "tick0": 1, "dtick": 1 if last <= 6 else 2}
    axes = {
        "xaxis": epochs_axis,
        "xaxis2": epochs_axis,
        "yaxis": {"range": _accuracy_range(shown), "tickformat": ".0%", "nticks": 5},
        "yaxis2": _loss_axis(shown),
    }
    best = results.set_index("cell")["best_epoch"]
    layout = _grid_layout(axes)
    figures = {}
    for (strategy, regime), own in shown.groupby(["strategy", "regime"], sort=False):
        traces: list[dict[str, object]] = []
        for cell, epochs in own.groupby("cell", sort=False):
            at = None if pd.isna(best[cell]) else int(best[cell])
            traces += _cell_traces(epochs, at, last <= _POINTS_UP_TO, not traces)
        boundaries = [line for at in sorted(_phase_boundaries(own)) for line in _boundary(at)]
        figures[Recipe(str(strategy), str(regime))] = go.Figure(traces, {**layout, "shapes": boundaries})
    return figures


def seconds_figure(results: pd.DataFrame) -> go.Figure | None:
    """Return mean seconds per epoch as bars, one panel per regime and one bar per strategy; None without numbers.

    Whiskers range from the fastest to the slowest run. A strategy without finished cells keeps an empty place.
    """
    done = results[(results["status"] == "finished") & results["seconds_per_epoch"].notna()]
    if done.empty:
        return None
    regimes, strategies = list(dict.fromkeys(done["regime"])), list(dict.fromkeys(results["strategy"]))
    plot = len(regimes) * (26 * len(strategies) + 46)
    figure = make_subplots(
        rows=len(regimes),
        cols=1,
        shared_xaxes=True,
        vertical_spacing=40 / plot if len(regimes) > 1 else 0,
        subplot_titles=[_plain(regime) for regime in regimes],
    )
    figure.update_annotations(x=0, xanchor="left", font={"size": 13, "color": "var(--ink)"})
    for row, regime in enumerate(regimes, start=1):
        own = done[done["regime"] == regime].groupby("strategy")["seconds_per_epoch"]
        times = own.agg(["mean", "min", "max", "count"]).reindex([name for name in strategies if name in own.groups])
        figure.add_traces(_seconds_bars(regime, times, strategies), rows=row, cols=1)
    figure.update_layout(
        **_layout(height=plot + 50, margin={"l": 10, "r": 60, "t": 26, "b": 44}), showlegend=False, bargap=0.2
    )
    figure.update_yaxes(
        type="category",
        categoryorder="array",
        categoryarray=[_plain(name) for name in strategies],
        range=[len(strategies) - 0.5, -0.5],
        automargin=True,
        ticks="",
    )
    figure.update_xaxes(range=[0, 1.02 * float(done["seconds_per_epoch"].max())])
    figure.update_xaxes(title={"text": "seconds per epoch", "standoff": 6}, row=len(regimes), col=1)
    _style_axes(figure)
    figure.update_yaxes(showgrid=False)
    return figure


def _seconds_bars(regime: str, times: pd.DataFrame, strategies: Sequence[str]) -> list[go.Bar | go.Scatter]:
    """Return the bars of a regime with whiskers, and their numbers, which as texts of the bars would overlap whiskers.

    ``times`` has one row per strategy with the seconds of its runs: mean, min, max and count.
    """
    names = [_plain(name) for name in times.index]
    bars = go.Bar(
        name=_plain(regime),
        orientation="h",
        y=names,
        x=_numbers(times["mean"]),
        error_x=_whiskers(times["max"] - times["mean"], times["mean"] - times["min"], "var(--ink)")
        | {"visible": bool((times["count"] > 1).any())},
        marker={"color": [f"var(--series-{strategies.index(name) % PALETTE_SIZE})" for name in times.index]},
        customdata=[
            [*map(seconds_text, (mean, low, high)), int(count)]
            for mean, low, high, count in times.itertuples(index=False)
        ],
        hovertemplate="%{y}: mean %{customdata[0]} per epoch<br>%{customdata[1]} to %{customdata[2]}, "
        "n = %{customdata[3]}<extra></extra>",
    )
    numbers = go.Scatter(
        mode="text",
        y=names,
        x=_numbers(times["max"]),
        text=[f"  {seconds_text(value)}" for value in times["mean"]],
        textposition="middle right",
        textfont={"size": 12, "color": "var(--ink)"},
        cliponaxis=False,
        hoverinfo="skip",
    )
    return [bars, numbers]


def _whiskers(above: pd.Series, below: pd.Series, color: str) -> dict[str, Any]:
    lengths = {"array": _numbers(above), "arrayminus": _numbers(below)}
    return {"type": "data", **lengths, "color": color, "thickness": 1, "width": 3}


def _grid_layout(axes: Mapping[str, object]) -> dict[str, object]:
    """Return the layout that all figures of a grid share; plotly takes longer to build it than to build their lines."""
    figure = make_subplots(
        rows=2, cols=1, shared_xaxes=True, vertical_spacing=0.13, subplot_titles=["accuracy", "loss"]
    )
    figure.update_annotations(x=0, xanchor="left", font={"size": 12})
    figure.update_layout(**_layout(height=320, margin={"l": 40, "r": 8, "t": 22, "b": 36}), showlegend=False)
    figure.update_layout(axes)
    figure.update_xaxes(title={"text": "epoch", "standoff": 4}, row=2, col=1)
    _style_axes(figure)
    return {**figure.to_plotly_json()["layout"], "template": go.layout.Template()}  # None would select plotly's default


def _boundary(at: float) -> list[dict[str, object]]:
    line = {"color": "var(--muted)", "width": 1, "dash": "dot"}
    ends = {"type": "line", "x0": at, "x1": at, "y0": 0, "y1": 1, "line": line}
    return [{**ends, "xref": f"x{axis}", "yref": f"y{axis} domain"} for axis in ("", "2")]


def _cell_traces(epochs: pd.DataFrame, best: int | None, points: bool, first: bool) -> list[dict[str, object]]:
    seed, fold = epochs["seed"].iloc[0], epochs["fold"].iloc[0]
    run = f"seed {seed}" if pd.isna(fold) else f"seed {seed}, fold {fold}"
    traces: list[dict[str, object]] = []
    for axis, quantity, value in (("", "accuracy", "%{y:.1%}"), ("2", "loss", "%{y:.3f}")):
        place = {"type": "scatter", "xaxis": f"x{axis}", "yaxis": f"y{axis}", "showlegend": not axis and first}
        for role, column, dash in (("train", f"train_{quantity}", "dash"), ("validation", f"val_{quantity}", "solid")):
            traces.append(
                {
                    **place,
                    "name": _ROLES[role],
                    "legendgroup": role,
                    "x": [int(epoch) for epoch in epochs["epoch"]],
                    "y": _numbers(epochs[column]),
                    "mode": "lines+markers" if points else "lines",
                    "line": {"color": f"var(--{role})", "width": 1.5, "dash": dash},
                    "marker": {"size": 4, "color": f"var(--{role})"},
                    "opacity": 0.85,
                    "hovertemplate": f"{role} {quantity} {value}<br>epoch %{{x}}, {run}<extra></extra>",
                }
            )
        at_best = epochs[epochs["epoch"] == best] if best is not None else epochs.iloc[:0]
        traces.append(
            {
                **place,
                "name": "best epoch",
                "legendgroup": "best",
                "x": [int(epoch) for epoch in at_best["epoch"]],
                "y": _numbers(at_best[f"val_{quantity}"]),
                "mode": "markers",
                "marker": {
                    "symbol": "circle",
                    "size": 9,
                    "color": "var(--surface)",
                    "line": {"color": "var(--validation)", "width": 2},
                },
                "hovertemplate": f"best epoch %{{x}}, {run}<br>validation {quantity} {value}<extra></extra>",
            }
        )
    return traces


def _phase_boundaries(history: pd.DataFrame) -> set[float]:
    boundaries = set()
    for _, epochs in history.groupby("cell", sort=False):
        ends = epochs.groupby("phase", sort=False)["epoch"].max()
        boundaries |= {float(end) + 0.5 for end in ends.iloc[:-1]}
    return boundaries


def _accuracy_range(shown: pd.DataFrame) -> list[float]:
    numbers = _finite(shown, ("train_accuracy", "val_accuracy"))
    if not numbers:
        return [0.0, 1.03]
    low, high = min(numbers), max(numbers)
    margin = max(0.03, 0.06 * (high - low))
    return [max(-0.03, low - margin), min(1.03, high + margin)]


def _loss_axis(shown: pd.DataFrame) -> dict[str, object]:
    numbers = sorted(_finite(shown, ("train_loss", "val_loss")))
    if not numbers:
        return {}
    low, high, middle = numbers[0], numbers[-1], numbers[len(numbers) // 2]
    if low > 0 and high > 8 * middle:
        bottom, top = math.log10(low), math.log10(high)
        return {"type": "log", "range": [bottom - 0.05 * (top - bottom), top + 0.05 * (top - bottom)], "dtick": 1}
    margin = 0.06 * (high - min(low, 0.0)) or 1.0
    return {"range": [min(low, 0.0) - margin, high + margin], "nticks": 5}


def _finite(table: pd.DataFrame, columns: Iterable[str]) -> list[float]:
    return [float(value) for column in columns for value in table[column] if math.isfinite(value)]


def _numbers(values: Iterable[float]) -> list[float | None]:
    """Round to five significant digits; None where a value is not finite, because JSON has no NaN."""
    return [float(f"{value:.5g}") if math.isfinite(value) else None for value in values]


def _layout(height: int, margin: dict[str, int]) -> dict[str, object]:
    return {
        "template": None,
        "height": height,
        "margin": margin,
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "font": {"family": "system-ui, -apple-system, 'Segoe UI', sans-serif", "size": 12, "color": "var(--muted)"},
        "hoverlabel": {
            "bgcolor": "var(--surface)",
            "bordercolor": "var(--line)",
            "font": {"size": 12, "color": "var(--ink)"},
            "align": "left",
        },
        "hovermode": "closest",
    }


def _style_axes(figure: go.Figure) -> None:
    style = {"gridcolor": "var(--line)", "linecolor": "var(--line)", "zeroline": False, "title_font_size": 12}
    figure.update_xaxes(**style)
    figure.update_yaxes(**style)


def _plain(text: str) -> str:
    """Escape a name so that plotly interprets neither markup nor a %{placeholder} in it."""
    return html.escape(text).replace("%", "&#37;").replace("$", "&#36;")


COLOURS = (
    ("accent", "0,114,178"), ("train", "213,94,0"), ("new", "0,158,115"), ("curve-3", "204,121,167"),
    ("curve-4", "180,160,20"), ("curve-5", "120,130,145"),
)  # fmt: skip
"""Colours of lines, as CSS variables, and of their bands, as RGB."""

DASHES = ("solid", "dash", "dot")


def curves_figure(curves: Sequence[Curve]) -> go.Figure | None:
    """Return the learning curves with their measured means, up to twice the largest size; None without a curve.

    Strategies differ in colour, series of regimes in dash. Bands are 95 % intervals of the fit.
    """
    if not curves:
        return None
    strategies = list(dict.fromkeys(curve.strategy for curve in curves))
    series = list(dict.fromkeys(curve.series for curve in curves))
    figure = go.Figure()
    for curve in curves:
        variable, band = COLOURS[strategies.index(curve.strategy) % len(COLOURS)]
        colour = f"var(--{variable})"
        dash = DASHES[series.index(curve.series) % len(DASHES)]
        name = _plain(curve.strategy + (f", {curve.series}" if len(series) > 1 else ""))
        group = {"legendgroup": f"{curve.strategy} {curve.series}", "name": name}
        sizes = np.geomspace(curve.sizes[0], 2 * curve.sizes[-1], 30)
        at = np.array([curve.at(float(size)) for size in sizes])
        for bound, fill in ((1, None), (2, "tonexty")):
            figure.add_scatter(x=_numbers(sizes), y=_numbers(at[:, bound]), mode="lines", line={"width": 0},
                               fill=fill, fillcolor=f"rgba({band},0.12)", hoverinfo="skip", showlegend=False,
                               **group)  # fmt: skip
        figure.add_scatter(
            x=_numbers(sizes), y=_numbers(at[:, 0]), mode="lines", line={"color": colour, "width": 2, "dash": dash},
            hovertemplate="%{customdata} at %{x:.3g} images per class<extra>" + name + "</extra>",
            customdata=[estimate_text(curve.metric, *one) for one in at], **group,
        )  # fmt: skip
        figure.add_scatter(
            x=_numbers(curve.sizes), y=_numbers(curve.values), mode="markers", marker={"color": colour, "size": 8},
            hovertemplate="measured: %{y:.4g} at %{x:.3g} images per class<extra>" + name + "</extra>",
            showlegend=False, **group,
        )  # fmt: skip
    ticks = sorted({float(size) for curve in curves for size in (*curve.sizes, 2 * curve.sizes[-1])})
    figure.update_layout(**_layout(height=420, margin={"l": 56, "r": 10, "t": 10, "b": 44}))
    figure.update_layout(legend={"orientation": "h", "x": 0, "y": -0.2, "yanchor": "top"})
    _style_axes(figure)
    shown = ticks if len(ticks) <= 8 else None
    figure.update_xaxes(type="log", title={"text": "training images per class", "standoff": 4}, tickvals=shown,
                        ticktext=[f"{tick:.4g}" for tick in shown] if shown else None)  # fmt: skip
    metric = METRICS[curves[0].metric]
    figure.update_yaxes(
        tickformat=".0%" if metric.percent else "", title={"text": f"test {metric.label}", "standoff": 4}
    )
    return figure


WRITTEN_UP_TO = 12
"""Most classes with which the squares of the confusion matrix show their counts."""

NAMED_UP_TO = 60
"""Most classes with which squares are large enough for names in normal size."""

_LONGEST_NAME = 18


def confusion_sizes(classes: int) -> tuple[int, int, int]:
    """Return height, smallest and largest width in pixels of the confusion matrix; in a narrower box it scrolls."""
    square = 44 if classes <= WRITTEN_UP_TO else 18 if classes <= NAMED_UP_TO else 10
    side = square * classes
    return (
        side + (120 if classes <= WRITTEN_UP_TO else 190),
        0 if classes <= WRITTEN_UP_TO else side + 150,
        max(420, round(1.6 * side) + 170),
    )


def confusion_figure(counts: Counts, classes: list[str], order: list[int]) -> go.Figure:
    """Return the confusion matrix: rows are labels, columns predictions, colours shares of the row.

    Correct predictions are blue on a scale to 100 %; mistakes are orange on a scale to the largest of them, so that
    they are visible beside the diagonal. Squares without images are empty.
    """
    names = [_plain(classes[place]) for place in order]
    sorted_counts = counts[order][:, order]
    shares = row_shares(sorted_counts)
    count, few = len(order), len(order) <= WRITTEN_UP_TO
    figure = go.Figure()
    for kind, correct, left in (("right", True, 0.25), ("mistaken", False, 0.75)):
        shown = [[(row == column) == correct and sorted_counts[row, column] > 0 for column in range(count)]
                 for row in range(count)]  # fmt: skip
        found = [shares[row, column] for row in range(count) for column in range(count) if shown[row][column]]
        if not found:
            continue
        figure.add_heatmap(
            name=kind,
            x=names,
            y=names,
            z=[[round(float(shares[row, column]), 4) if shown[row][column] else None for column in range(count)]
               for row in range(count)],
            text=[[int(sorted_counts[row, column]) if shown[row][column] else "" for column in range(count)]
                  for row in range(count)],
            zmin=0,
            zmax=1 if correct else max(found),
            colorscale=[[0, f"var(--{kind}-low)"], [1, f"var(--{kind}-high)"]],
            texttemplate="%{text}" if few else None,
            xgap=1,
            ygap=1,
            hoverongaps=False,
            showscale=not few,
            hovertemplate="%{y} predicted as %{x}<br>%{text} images, %{z:.1%} of %{y}<extra></extra>"
            if not correct
            else "%{y} predicted correctly<br>%{text} images, %{z:.1%} of %{y}<extra></extra>",
            colorbar={
                "orientation": "h", "x": left, "len": 0.44, "y": 0, "yref": "container", "yanchor": "bottom",
                "thickness": 9, "tickformat": ".0%", "nticks": 4, "outlinewidth": 0, "tickfont": {"size": 11},
                "title": {"text": f"{kind}: share of the row", "side": "top", "font": {"size": 12}},
            },
        )  # fmt: skip
    font = 12 if count <= NAMED_UP_TO else 9
    axis = {
        "type": "category", "categoryorder": "array", "categoryarray": names, "tickvals": names, "automargin": True,
        "ticktext": [_plain(shortened(classes[place])) for place in order], "tickfont": {"size": font}, "ticks": "",
        "showgrid": False,
    }  # fmt: skip
    height, _, _ = confusion_sizes(count)
    figure.update_layout(**_layout(height=height, margin={"l": 10, "r": 10, "t": 10, "b": 10 if few else 76}))
    _style_axes(figure)
    figure.update_xaxes(**axis, title={"text": "predicted", "standoff": 6}, side="top", tickangle=-60 if few else -90)
    figure.update_yaxes(**axis, title={"text": "label", "standoff": 6}, autorange="reversed")
    return figure


def shortened(name: str) -> str:
    """Shorten a name to fit beside the matrix; the tables have it in full."""
    return name if len(name) <= _LONGEST_NAME else name[: _LONGEST_NAME - 1] + "…"


def reliability_figure(bins: pd.DataFrame) -> go.Figure:
    """Return the reliability diagram: accuracy by confidence with 95 % intervals, and the share of images in each bin.

    The dotted line is perfect calibration.
    """
    shares = bins["images"] / bins["images"].sum()
    figure = go.Figure()
    figure.add_bar(
        name="images",
        x=_numbers((bins["low"] + bins["high"]) / 2),
        y=_numbers(shares),
        width=_numbers(bins["high"] - bins["low"]),
        marker={"color": "var(--line)", "line": {"color": "var(--surface)", "width": 1}},
        hovertemplate="%{y:.0%} of the images<extra></extra>",
    )
    figure.add_scatter(
        name="perfect calibration",
        x=[0, 1],
        y=[0, 1],
        mode="lines",
        line={"color": "var(--muted)", "width": 1, "dash": "dot"},
        hoverinfo="skip",
    )
    figure.add_scatter(
        name="accuracy",
        x=_numbers(bins["confidence"]),
        y=_numbers(bins["accuracy"]),
        mode="lines+markers",
        line={"color": "var(--validation)", "width": 1.5},
        marker={"color": "var(--validation)", "size": 7},
        error_y=_whiskers(
            bins["accuracy_high"] - bins["accuracy"], bins["accuracy"] - bins["accuracy_low"], "var(--validation)"
        ),
        customdata=bins[["accuracy_low", "accuracy_high", "images"]].round(4).to_numpy().tolist(),
        hovertemplate="confidence %{x:.1%}: accuracy %{y:.1%} (%{customdata[0]:.0%} to %{customdata[1]:.0%}), "
        "n = %{customdata[2]}<extra></extra>",
    )
    figure.update_layout(**_layout(height=300, margin={"l": 46, "r": 10, "t": 8, "b": 40}), showlegend=False)
    _style_axes(figure)
    figure.update_xaxes(range=[0, 1.01], tickformat=".0%", nticks=6, title={"text": "confidence", "standoff": 4})
    figure.update_yaxes(range=[0, 1.03], tickformat=".0%", nticks=6, title={"text": "accuracy", "standoff": 4})
    return figure
