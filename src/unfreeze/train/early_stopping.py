"""Early stopping as state, so that it can be saved and resumed."""

import math
from dataclasses import dataclass, replace

from unfreeze.config.schema import EarlyStopping
from unfreeze.metrics import METRICS


@dataclass(frozen=True)
class StoppingState:
    """The best monitored value so far, its epoch (from 1; 0: none yet), and how many epochs it has not been beaten."""

    best: float = math.nan
    best_epoch: int = 0
    waited: int = 0


def after_epoch(
    state: StoppingState, settings: EarlyStopping | None, metric: str, value: float, epoch: int
) -> StoppingState:
    """Return the state after an epoch.

    Without early stopping every epoch counts as the best so far, so that the last one is reported.

    Args:
        state: before the epoch.
        settings: None trains all epochs.
        metric: the study's metric.
        value: of the monitored column of the epoch.
        epoch: its number, from 1.
    """
    if settings is None:
        return StoppingState(math.nan, epoch, 0)
    rises = METRICS[metric].higher_is_better
    rising = settings.monitor == "val_accuracy" or (settings.monitor == "val_metric" and rises)
    gain = value - state.best if rising else state.best - value
    if not math.isnan(value) and (math.isnan(state.best) or gain > settings.min_delta):
        return StoppingState(value, epoch, 0)
    return replace(state, waited=state.waited + 1)


def should_stop(state: StoppingState, settings: EarlyStopping | None) -> bool:
    """Tell whether the phase ends here."""
    return settings is not None and state.waited >= settings.patience
