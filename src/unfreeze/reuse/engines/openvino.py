"""OpenVINO on the CPU: fused convolutions, one thread a request, as many requests at once as there are threads.

With AVX2 it is told how to compute 1 x 1 convolutions: by itself it takes oneDNN's brgconv, which is slower
(bench/README.md).

float32 is asked for, since it would compute in bfloat16 by itself where the processor can. A request's rows are all
that one thread sees, so a row's numbers depend neither on its neighbours nor on the number of threads.
"""

import tempfile
from importlib import metadata
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import torch
from torch import Tensor

from unfreeze.model.network import Frozen
from unfreeze.reuse.engines.failed import EngineFailed, gist
from unfreeze.reuse.engines.tracing import traced

BATCHES = (8, 1)
"""Rows a request: several where the network can be traced for that, since weights are then read once for all."""

POINTWISE = "jit_avx2_1x1"
"""oneDNN's name of the kernel for 1 x 1 convolutions that is asked for where AVX2 is the best there is."""

_PRECISION = {"float32": "f32", "bfloat16": "bf16"}

WORTH_SECONDS = 5.0
"""Of frozen work in PyTorch; below, making this engine (one to three seconds) would cost what it saves."""

TOGETHER = False
"""Each thread has a request of its own."""


def offers(device: torch.device, precision: str, threads: int) -> list[dict[str, str | int]]:
    """Return the settings for a CPU, the better first; none elsewhere."""
    if device.type != "cpu":
        return []
    version, kernels = metadata.version("openvino"), torch.backends.cpu.get_cpu_capability()
    return [
        {
            "name": "openvino",
            "version": version,
            "precision": precision,
            "batch": batch,
            "threads": threads,
            "kernels": kernels,
            **({"pointwise": POINTWISE} if (kernels, precision) == ("AVX2", "float32") else {}),
        }
        for batch in BATCHES
    ]


def build(settings: object, stages: Frozen, input_shape: tuple[int, ...], device: torch.device) -> "OpenVINOEngine":
    """Trace the stages for one row and compile them.

    Raises:
        EngineFailed: OpenVINO cannot trace, convert or compile them, or there is no room for temporary files.
    """
    import openvino

    batch, threads = settings["batch"], settings["threads"]  # type: ignore[index]
    options = {
        "INFERENCE_PRECISION_HINT": _PRECISION[settings["precision"]],  # type: ignore[index]
        "NUM_STREAMS": str(threads),
        "INFERENCE_NUM_THREADS": str(threads),
    }
    graph = traced(f"openvino, batch {batch}", stages.stages, input_shape)
    try:
        model = openvino.convert_model(graph, example_input=torch.zeros(1, *input_shape))
        model.reshape([batch, *input_shape])
        core = openvino.Core()
        if "pointwise" in settings:  # type: ignore[operator]
            model = _with_pointwise(core, model, settings["pointwise"])  # type: ignore[index]
        compiled = core.compile_model(model, "CPU", options)
        # A tracer's constants may hold the batch of the trace: such a model gives other shapes, or none.
        output_shape = tuple(compiled.output(0).shape)[1:]
    # What OpenVINO's front end raises, and a full disk.
    except (RuntimeError, ValueError, TypeError, OSError, ElementTree.ParseError) as error:
        raise EngineFailed(f"openvino, batch {batch}: {gist(error)}") from error
    engine = OpenVINOEngine(compiled, batch, threads, output_shape)
    if compiled.output(0).shape[0] != batch:
        raise EngineFailed(f"openvino, batch {batch}: the traced network gives {tuple(compiled.output(0).shape)}")
    return engine


def _with_pointwise(core: Any, model: Any, kernel: str) -> Any:
    """Return a model whose 1 x 1 convolutions are computed by a kernel, where it can.

    What asks for that is an attribute (``ov::PrimitivesPriority``) that OpenVINO reads from a model's file; its Python
    interface cannot set it.
    """
    import openvino

    convolutions = [one for one in model.get_ops() if one.get_type_name() == "Convolution"]
    pointwise = {one.get_friendly_name() for one in convolutions if list(one.input(1).get_shape())[2:] == [1, 1]}
    if not pointwise:
        return model
    with tempfile.TemporaryDirectory(prefix="unfreeze-openvino-") as folder:
        path, weights = Path(folder, "model.xml"), Path(folder, "model.bin")
        openvino.serialize(model, path, weights)
        root = ElementTree.parse(path).getroot()
        for layer in root.iter("layer"):
            if layer.get("name") in pointwise:
                info = layer.find("rt_info")
                if info is None:
                    info = ElementTree.Element("rt_info")
                    layer.insert([part.tag for part in layer].index("input"), info)
                asked = {"name": "primitives_priority", "version": "0", "value": f"cpu:{kernel}"}
                ElementTree.SubElement(info, "attribute", asked)
        return core.read_model(ElementTree.tostring(root), weights.read_bytes())


class OpenVINOEngine:
    """A compiled network and its requests."""

    def __init__(self, compiled: Any, batch: int, threads: int, output_shape: tuple[int, ...]) -> None:
        import openvino

        self.batch, self.output_shape = batch, output_shape
        self.queue = openvino.AsyncInferQueue(compiled, threads)

    def __call__(self, rows: Tensor) -> Tensor:
        """Compute rows in requests of ``batch``, the last one padded."""
        # Not inference tensors: what trains on the rows saves them for its backward pass.
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
