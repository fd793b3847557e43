"""ncnn on the CPU: Winograd convolutions, which need fewer multiplications than direct ones; one row a thread.

On VGG16 1.8 times as fast as OpenVINO (bench/README.md). A row is computed alone and on one thread, so its numbers
depend neither on its neighbours nor on the number of threads.
"""

import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from unfreeze.model.network import Frozen
from unfreeze.reuse.engines import ncnn_network
from unfreeze.reuse.engines.failed import EngineFailed
from unfreeze.reuse.engines.tracing import traced

_TRIED_SECONDS = 60
"""Longest that one row may take in the process that tries a network first."""

_CONVERTED_SECONDS = 600
"""Longest that pnnx may take; VGG16 takes two seconds."""

_NOT_KEPT = ("pnnxparam", "pnnxbin", "pnnxpy", "pnnxonnx", "ncnnpy")

WORTH_SECONDS = 20.0
"""Of frozen work in PyTorch; below, making this engine (two to five seconds) would cost what it saves."""

TOGETHER = False
"""Each thread has a request of its own."""


def offers(device: torch.device, precision: str, threads: int) -> list[dict[str, str | int]]:
    """Return the setting for a CPU in float32; none elsewhere."""
    if device.type != "cpu" or precision != "float32":
        return []
    version = f"{metadata.version('ncnn')}, pnnx {metadata.version('pnnx')}"  # which merges and folds layers
    return [
        {
            "name": "ncnn",
            "version": version,
            "precision": precision,
            "batch": 1,
            "threads": threads,
            "kernels": torch.backends.cpu.get_cpu_capability(),
        }
    ]


def build(settings: object, stages: Frozen, input_shape: tuple[int, ...], device: torch.device) -> "NCNNEngine":
    """Trace the stages for one row and convert them.

    Raises:
        EngineFailed: they cannot be traced, converted or run, or there is no room for temporary files.
    """
    threads = settings["threads"]  # type: ignore[index]
    with tempfile.TemporaryDirectory(prefix="unfreeze-ncnn-") as folder:
        output_shape = _convert(stages.stages, input_shape, Path(folder))
        # A network that ncnn cannot run may end the process that tries.
        command = [sys.executable, "-P", ncnn_network.__file__, folder, *map(str, input_shape)]
        tried = _run(command, "run the network", _TRIED_SECONDS)
        if tried.stdout.split() != [str(size) for size in output_shape]:
            raise EngineFailed(f"ncnn gives rows of shape {tried.stdout.split()}, not {list(output_shape)}")
        return NCNNEngine(ncnn_network.load(Path(folder)), threads, output_shape)


def _convert(stages: nn.Module, input_shape: tuple[int, ...], folder: Path) -> tuple[int, ...]:
    """Write ncnn's files of the stages into a folder; the shape of an output row."""
    import pnnx

    graph = traced("ncnn", stages, input_shape)
    with torch.no_grad():
        output_shape = tuple(graph(torch.zeros(1, *input_shape)).shape)[1:]
    try:
        graph.save(str(folder / "stages.pt"))
    except RuntimeError as error:  # the disk of temporary files is full, say
        raise EngineFailed(f"ncnn's network cannot be written to {folder}") from error
    files = [f"{name}={folder / name}" for name in ncnn_network.FILES] + [
        f"{name}={folder / 'unused'}" for name in _NOT_KEPT
    ]
    shape = f"inputshape=[{','.join(map(str, (1, *input_shape)))}]"
    _run(
        [pnnx.EXEC_PATH, str(folder / "stages.pt"), shape, "fp16=0", *files], "convert the network", _CONVERTED_SECONDS
    )
    if not all((folder / name).is_file() for name in ncnn_network.FILES):
        raise EngineFailed("ncnn cannot convert the network: no files were written")
    return output_shape


def _run(command: list[str], what: str, seconds: int) -> subprocess.CompletedProcess:
    """Run a program to its end; in a session of its own, so that Ctrl-C does not look like its failure."""
    try:
        ran = subprocess.run(
            command, capture_output=True, text=True, errors="replace", timeout=seconds, start_new_session=True
        )
    except subprocess.TimeoutExpired as error:
        raise EngineFailed(f"ncnn cannot {what} within {seconds} s") from error
    if ran.returncode != 0:
        raise EngineFailed(f"ncnn cannot {what}: {_last_line(ran.stderr, ran.returncode)}")
    return ran


def _last_line(text: str, code: int) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else f"exit status {code}"


class NCNNEngine:
    """A converted network and its threads."""

    def __init__(self, network: Any, threads: int, output_shape: tuple[int, ...]) -> None:
        self.network, self.output_shape = network, output_shape
        self.threads = ThreadPoolExecutor(threads, thread_name_prefix="ncnn")

    def __call__(self, rows: Tensor) -> Tensor:
        """Compute rows, as many at once as there are threads."""
        # Not inference tensors: what trains on the rows saves them for its backward pass.
        outputs = torch.empty(len(rows), *self.output_shape)
        given, taken = rows.numpy(), outputs.numpy()

        def compute(index: int) -> None:
            taken[index] = ncnn_network.run(self.network, given[index])

        list(self.threads.map(compute, range(len(rows))))  # asked for, so that what a row raised is raised here
        return outputs
