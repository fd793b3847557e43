"""OpenVINO engine for CPUs: fused convolutions, one inference request per thread.

The precision is set explicitly, since OpenVINO would choose bfloat16 where the processor supports it. A thread computes
the rows of one request alone, so the output of a row depends neither on other rows nor on the number of threads.
"""

from __future__ import annotations

import logging
import warnings
from importlib import metadata
from typing import TYPE_CHECKING, Any

import numpy as np

from unfreeze.activations.engine import EngineFailed, EngineKind, Settings, last_line

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from unfreeze.model.network import Frozen

BATCHES = (8, 1)
"""Rows per request to try: several rows share one read of the weights, where the network can be traced that way."""

_PRECISION = {"float32": "f32", "bfloat16": "bf16"}


def offers(device: torch.device, precision: str, threads: int) -> list[Settings]:
    """Return the settings for a CPU, the faster one first; none elsewhere."""
    if device.type != "cpu":
        return []
    import torch

    return [
        {
            "name": ENTRY.name,
            "version": metadata.version("openvino"),
            "precision": precision,
            "batch": batch,
            "threads": threads,
            "kernels": torch.backends.cpu.get_cpu_capability(),
        }
        for batch in BATCHES
    ]


def build(settings: Settings, stages: Frozen, input_shape: tuple[int, ...], device: torch.device) -> OpenVINOEngine:
    """Trace the stages for one row and compile them.

    Raises:
        EngineFailed: OpenVINO cannot trace, convert or compile them.
    """
    import openvino
    import torch

    batch, threads = int(settings["batch"]), int(settings["threads"])
    options = {
        "INFERENCE_PRECISION_HINT": _PRECISION[str(settings["precision"])],
        "NUM_STREAMS": str(threads),
        "INFERENCE_NUM_THREADS": str(threads),
    }
    graph = _traced(stages.stages, input_shape, batch)
    try:
        model = openvino.convert_model(graph, example_input=torch.zeros(1, *input_shape))
        model.reshape([batch, *input_shape])
        compiled = openvino.Core().compile_model(model, "CPU", options)
        # A traced constant may contain the batch of the trace; the output shape is then wrong or unknown.
        output_shape = tuple(compiled.output(0).shape)
    except (RuntimeError, ValueError, TypeError, OSError) as error:  # errors of OpenVINO's front end
        raise EngineFailed(f"openvino, batch {batch}: {last_line(error)}") from error
    if output_shape[0] != batch:
        raise EngineFailed(f"openvino, batch {batch}: the traced network gives {output_shape}")
    return OpenVINOEngine(compiled, batch, threads, output_shape[1:])


def _traced(stages: nn.Module, input_shape: tuple[int, ...], batch: int) -> Any:
    """Trace stages for one row without warnings; a trace for 32 rows takes twenty seconds.

    Raises:
        EngineFailed: PyTorch cannot trace them.
    """
    import torch

    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter(
            "ignore"
        )  # about Python values taken as constants, and about the tracer's own deprecation
        before = logging.root.manager.disable
        logging.disable(logging.WARNING)
        try:
            return torch.jit.trace(stages, torch.zeros(1, *input_shape), check_trace=False)
        except Exception as error:  # the model's own code runs here and may raise anything
            raise EngineFailed(f"openvino, batch {batch}: {last_line(error)}") from error
        finally:
            logging.disable(before)


class OpenVINOEngine:
    """A compiled network and its queue of requests."""

    def __init__(self, compiled: Any, batch: int, threads: int, output_shape: tuple[int, ...]) -> None:
        import openvino

        self.batch, self.output_shape = batch, output_shape
        self.queue = openvino.AsyncInferQueue(compiled, threads)

    def __call__(self, rows: Tensor) -> Tensor:
        """Return the output of rows, computed in requests of ``batch`` rows, the last one padded."""
        import torch

        # Not inference tensors, since training saves the rows for its backward pass.
        outputs = torch.empty(len(rows), *self.output_shape)
        given, taken = np.ascontiguousarray(rows.numpy(), np.float32), outputs.numpy()

        def take(request: Any, start: int) -> None:
            found = request.get_output_tensor(0).data
            taken[start : start + self.batch] = found[: len(rows) - start]

        self.queue.set_callback(take)
        for start in range(0, len(rows), self.batch):
            request = given[start : start + self.batch]
            if len(request) < self.batch:
                request = np.concatenate(
                    [request, np.zeros_like(request, shape=(self.batch - len(request), *request.shape[1:]))]
                )
            self.queue.start_async({0: request}, start)
        self.queue.wait_all()
        return outputs


ENTRY = EngineKind("openvino", offers, build, worth_seconds=5.0, shares_batch=False)
"""Building takes one to three seconds, which pays off from about five seconds of frozen work on."""
