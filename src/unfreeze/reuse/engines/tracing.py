"""Frozen stages as a graph that other engines can read."""

import logging
import threading
import warnings
from typing import Any

import torch
from torch import nn

from unfreeze.reuse.engines.failed import EngineFailed, gist

_ALONE = threading.Lock()
"""Tracing changes warnings and logging of the whole process; engines are built side by side."""


def traced(engine: str, stages: nn.Module, input_shape: tuple[int, ...]) -> Any:
    """Trace stages for one row, quietly; at batch 32 it takes twenty seconds.

    Raises:
        EngineFailed: PyTorch's tracer cannot follow them; the message names the engine.
    """
    with _ALONE, warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # the tracer's, on Python values it takes for constants, and on itself
        before = logging.root.manager.disable
        logging.disable(logging.WARNING)
        try:
            return torch.jit.trace(stages, torch.zeros(1, *input_shape), check_trace=False)
        except Exception as error:  # a model's own code runs here, and may raise anything
            raise EngineFailed(f"{engine}: {gist(error)}") from error
        finally:
            logging.disable(before)
