"""Plotly figures of one model's predictions: who is taken for whom, and how far its confidence can be believed."""

import pandas as pd
import plotly.graph_objects as go

from unfreeze.results.inside import Counts, row_shares
from unfreeze.results.pictures import _layout, _numbers, _plain, _style_axes

WRITTEN_UP_TO = 12
"""Classes up to which each field of the confusion matrix has its count written in it."""
NAMED_UP_TO = 60
"""Classes up to which a field is large enough for a name of the usual size beside it."""
_LONGEST_NAME = 18


def confusion_sizes(classes: int) -> tuple[int, int, int]:
    """Return height, least and greatest width in pixels of the confusion matrix; beyond its box it scrolls."""
    field = 44 if classes <= WRITTEN_UP_TO else 18 if classes <= NAMED_UP_TO else 10
    side = field * classes
    return (
        side + (120 if classes <= WRITTEN_UP_TO else 190),
        0 if classes <= WRITTEN_UP_TO else side + 150,
        max(420, round(1.6 * side) + 170),
    )


def confusion_figure(counts: Counts, classes: list[str], order: list[int]) -> go.Figure:
    """Return the confusion matrix: true classes downwards, predictions across, a field's colour its share of the row.

    What was right, on the diagonal, is blue and on a scale to 100 %; mistakes are orange and on a scale to the largest
    of them, so that the eye finds them. Fields without an image are empty.
    """
    names = [_plain(classes[place]) for place in order]
    sorted_counts = counts[order][:, order]
    shares = row_shares(sorted_counts)
    count, few = len(order), len(order) <= WRITTEN_UP_TO
    figure = go.Figure()
    for kind, right, low in (("right", True, 0.25), ("mistaken", False, 0.75)):
        shown = [[(row == column) == right and sorted_counts[row, column] > 0 for column in range(count)]
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
            zmax=1 if right else max(found),
            colorscale=[[0, f"var(--{kind}-low)"], [1, f"var(--{kind}-high)"]],
            texttemplate="%{text}" if few else None,
            xgap=1,
            ygap=1,
            hoverongaps=False,
            showscale=not few,
            hovertemplate="%{y} taken for %{x}<br>%{text} images, %{z:.1%} of %{y}<extra></extra>"
            if not right
            else "%{y} found<br>%{text} images, %{z:.1%} of %{y}<extra></extra>",
            colorbar={
                "orientation": "h", "x": low, "len": 0.44, "y": 0, "yref": "container", "yanchor": "bottom",
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
    """Return a name that fits beside a matrix; the whole one stands in the tables."""
    return name if len(name) <= _LONGEST_NAME else name[: _LONGEST_NAME - 1] + "…"


def reliability_figure(bins: pd.DataFrame) -> go.Figure:
    """Return accuracy against confidence by bin, with 95 % intervals, and below it the share of images in each bin.

    On the dotted line a model is right as often as it says.
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
        name="as sure as right",
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
        error_y={
            "type": "data",
            "array": _numbers(bins["accuracy_high"] - bins["accuracy"]),
            "arrayminus": _numbers(bins["accuracy"] - bins["accuracy_low"]),
            "color": "var(--validation)",
            "thickness": 1,
            "width": 3,
        },
        customdata=bins[["accuracy_low", "accuracy_high", "images"]].round(4).to_numpy().tolist(),
        hovertemplate="confidence %{x:.1%}: right %{y:.1%} (%{customdata[0]:.0%} to %{customdata[1]:.0%}), "
        "n = %{customdata[2]}<extra></extra>",
    )
    figure.update_layout(**_layout(height=300, margin={"l": 46, "r": 10, "t": 8, "b": 40}), showlegend=False)
    _style_axes(figure)
    figure.update_xaxes(range=[0, 1.01], tickformat=".0%", nticks=6, title={"text": "confidence", "standoff": 4})
    figure.update_yaxes(range=[0, 1.03], tickformat=".0%", nticks=6, title={"text": "accuracy", "standoff": 4})
    return figure
