"""The figure of learning curves: the metric against training images a class, with bands."""

from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go

from unfreeze.results.learning_curve import Curve
from unfreeze.results.pictures import _layout, _numbers, _plain, _style_axes
from unfreeze.results.words import METRIC_NAMES, estimate_text

COLOURS = (
    ("accent", "0,114,178"), ("train", "213,94,0"), ("new", "0,158,115"), ("curve-3", "204,121,167"),
    ("curve-4", "180,160,20"), ("curve-5", "120,130,145"),
)  # fmt: skip
"""Of lines, by their variables in the page's style, and of their bands."""
DASHES = ("solid", "dash", "dot")


def curves_figure(curves: Sequence[Curve]) -> go.Figure | None:
    """Return each curve through its measured means, up to twice its largest size; None without a curve.

    A strategy has a colour, a series of regimes a dash. A band is the 95 % interval of the fit.
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
            hovertemplate="%{customdata} at %{x:.3g} images a class<extra>" + name + "</extra>",
            customdata=[estimate_text(curve.metric, *one) for one in at], **group,
        )  # fmt: skip
        figure.add_scatter(
            x=_numbers(curve.sizes), y=_numbers(curve.values), mode="markers", marker={"color": colour, "size": 8},
            hovertemplate="measured: %{y:.4g} at %{x:.3g} images a class<extra>" + name + "</extra>",
            showlegend=False, **group,
        )  # fmt: skip
    ticks = sorted({float(size) for curve in curves for size in (*curve.sizes, 2 * curve.sizes[-1])})
    figure.update_layout(**_layout(height=420, margin={"l": 56, "r": 10, "t": 10, "b": 44}))
    figure.update_layout(legend={"orientation": "h", "x": 0, "y": -0.2, "yanchor": "top"})
    _style_axes(figure)
    shown = ticks if len(ticks) <= 8 else None
    figure.update_xaxes(type="log", title={"text": "training images a class", "standoff": 4}, tickvals=shown,
                        ticktext=[f"{tick:.4g}" for tick in shown] if shown else None)  # fmt: skip
    percent = curves[0].metric in ("accuracy", "balanced_accuracy")
    figure.update_yaxes(
        tickformat=".0%" if percent else "", title={"text": f"test {METRIC_NAMES[curves[0].metric]}", "standoff": 4}
    )
    return figure
