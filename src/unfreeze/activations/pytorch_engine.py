"""PyTorch engine: runs on every device and every network.

Kernels may sum in another order for another batch size, so all batches have one size, the last one padded. On a GPU
the calibration takes the largest batch that fits into memory.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from unfreeze.activations.engine import EngineKind, Settings

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from unfreeze.model.network import Frozen

BATCH = 32
SMALLER = (16, 8, 4, 2, 1)


class Batched:
    """Frozen stages in channels-last format and inference mode, run in batches of one size."""

    def __init__(self, stages: nn.Module, device: torch.device, batch: int, precision: str) -> None:
        import torch

        self.stages = stages.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.device, self.batch, self.precision = device, batch, precision

    def __call__(self, rows: Tensor) -> Tensor:
        """Return the output of rows."""
        import torch

        outputs = []
        with (
            torch.no_grad(),
            self._numerics(),
        ):  # not inference mode, since training saves the rows for its backward pass
            for start in range(0, len(rows), self.batch):
                batch = rows[start : start + self.batch].to(self.device, non_blocking=True)
                count = len(batch)
                if count < self.batch:
                    batch = torch.cat([batch, batch.new_zeros(self.batch - count, *batch.shape[1:])])
                if batch.ndim == 4:
                    batch = batch.contiguous(memory_format=torch.channels_last)
                outputs.append(self.stages(batch)[:count].float().contiguous())
            return outputs[0] if len(outputs) == 1 else torch.cat(outputs)

    def _numerics(self) -> contextlib.AbstractContextManager[object]:
        import torch

        if self.precision == "bfloat16":
            return torch.autocast(self.device.type, dtype=torch.bfloat16)
        return contextlib.nullcontext()


def offers(device: torch.device, precision: str, threads: int) -> list[Settings]:
    """Return the settings: one for a CPU; elsewhere one for each batch size, the largest first."""
    import torch

    return [
        {
            "name": ENTRY.name,
            "version": torch.__version__,
            "precision": precision,
            "batch": batch,
            "threads": threads,
            "kernels": torch.backends.cpu.get_cpu_capability() if device.type == "cpu" else _device_name(device),
        }
        for batch in (BATCH, *(SMALLER if device.type != "cpu" else ()))
    ]


def _device_name(device: torch.device) -> str:
    import torch

    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def build(settings: Settings, stages: Frozen, input_shape: tuple[int, ...], device: torch.device) -> Batched:
    """Return the stages as an engine, after moving them to the device."""
    return Batched(stages, device, int(settings["batch"]), str(settings["precision"]))


ENTRY = EngineKind("pytorch", offers, build, worth_seconds=0.0, shares_batch=True)
"""Nothing has to be built, so any work is worthwhile."""
