"""PyTorch itself: every device, every network.

Its kernels may choose another way of summing for another batch size, so rows go through in batches of one fixed size,
the last one padded.
"""

import contextlib

import torch
from torch import Tensor, nn

from unfreeze.model.network import Frozen

BATCH = 32

WORTH_SECONDS = 0.0
"""Always: nothing has to be made."""


def offers(device: torch.device, precision: str, threads: int) -> list[dict[str, str | int]]:
    """Return the one setting."""
    return [
        {
            "name": "pytorch",
            "version": torch.__version__,
            "precision": precision,
            "batch": BATCH,
            "threads": threads,
            "kernels": torch.backends.cpu.get_cpu_capability() if device.type == "cpu" else _device_name(device),
        }
    ]


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def build(settings: object, stages: Frozen, input_shape: tuple[int, ...], device: torch.device) -> "PyTorchEngine":
    """Return the stages as an engine; they are moved to the device."""
    precision = settings["precision"]  # type: ignore[index]
    return PyTorchEngine(stages, device, precision)


class PyTorchEngine:
    """Frozen stages in channels-last order, in inference mode."""

    def __init__(self, stages: nn.Module, device: torch.device, precision: str) -> None:
        self.stages = stages.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.device, self.precision = device, precision

    def __call__(self, rows: Tensor) -> Tensor:
        """Compute rows in batches of BATCH."""
        outputs = []
        with torch.no_grad(), self._autocast():  # not inference mode: what trains on the rows saves them for later
            for start in range(0, len(rows), BATCH):
                batch = rows[start : start + BATCH].to(self.device, non_blocking=True)
                count = len(batch)
                if count < BATCH:
                    batch = torch.cat([batch, batch.new_zeros(BATCH - count, *batch.shape[1:])])
                if batch.ndim == 4:
                    batch = batch.contiguous(memory_format=torch.channels_last)
                outputs.append(self.stages(batch)[:count].float().contiguous())
            return outputs[0] if len(outputs) == 1 else torch.cat(outputs)

    def _autocast(self) -> contextlib.AbstractContextManager:
        if self.precision == "bfloat16":
            return torch.autocast(self.device.type, dtype=torch.bfloat16)
        return contextlib.nullcontext()
