"""Frozen prefix of a backbone, run by one engine; gives the same numbers live and stored."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from unfreeze.activations import engines
from unfreeze.activations.engine import Engine, Settings
from unfreeze.errors import UserError
from unfreeze.model.backbone import Backbone
from unfreeze.model.memory import OutOfMemory, halve_until_fits, memory_error
from unfreeze.model.network import Frozen, frozen_state, tensors_hash

TOLERANCE = {"float32": 1e-4, "bfloat16": 2e-2}
"""Largest relative error of an engine against PyTorch in float32, by requested precision."""


@dataclass(frozen=True)
class Calibration:
    """Result of calibrating a prefix on a few images.

    Attributes:
        engine: settings of the chosen engine.
        error: its relative error against PyTorch in float32, at the deepest cut.
        seconds: its seconds per row at the deepest cut, with all threads busy.
        seconds_pytorch: seconds per row of PyTorch, channels-last.
        build: seconds of building the engine for one network.
        chains: pairs of cuts whose deeper rows are the same, bit for bit, from the shallower rows and from the image.
        refused: engines that were tried and refused, with the reason.
    """

    engine: Settings
    error: float
    seconds: float
    seconds_pytorch: float
    build: float
    chains: tuple[tuple[int, int], ...] = ()
    refused: Mapping[str, str] | None = None

    def as_record(self) -> dict[str, Any]:
        """Return the calibration as JSON data, for study.json and the cache."""
        return {
            "engine": dict(self.engine),
            "error": self.error,
            "seconds": self.seconds,
            "seconds_pytorch": self.seconds_pytorch,
            "build": self.build,
            "chains": [list(chain) for chain in self.chains],
            "refused": None if self.refused is None else dict(self.refused),
        }

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> "Calibration":
        """Return the calibration of a record of ``as_record``."""
        return cls(
            engine=record["engine"],
            error=record["error"],
            seconds=record["seconds"],
            seconds_pytorch=record["seconds_pytorch"],
            build=record["build"],
            chains=tuple((low, high) for low, high in record["chains"]),
            refused=record["refused"],
        )


class Prefix:
    """The first stages of a backbone, run by an engine that is built on first use.

    Args:
        backbone: the pretrained backbone, which is not changed.
        calibration: engine, and cuts that chain.
        dtype: type in which rows are stored, "float32" or "float16"; live rows are rounded in the same way.
        device: device that it runs on.
        built: engines that are already built, by start and stop of their stages.
    """

    def __init__(
        self,
        backbone: Backbone,
        calibration: Calibration,
        dtype: str,
        device: torch.device,
        built: Mapping[tuple[int, int], Engine] | None = None,
    ) -> None:
        self.backbone, self.calibration, self.dtype, self.device = backbone, calibration, dtype, device
        self.forwards = 0
        """Number of rows computed so far, at any cut."""
        self.batch = int(calibration.engine.get("batch", 1))
        """Rows that the engine computes at once; fewer than calibrated once memory was too short."""
        self._engines = {(*stages, self.batch): engine for stages, engine in (built or {}).items()}
        self._hashes: dict[int, str] = {}

    def take_fewer(self, rows: int) -> None:
        """Compute at most ``rows`` rows at once, as an earlier run whose memory was too short."""
        self.batch = min(self.batch, rows)

    @property
    def is_short(self) -> bool:
        """Whether fewer rows are computed at once than calibrated."""
        return self.batch < int(self.calibration.engine.get("batch", 1))

    def warnings(self, label: str, device: str) -> list[str]:
        """Return a warning in a list if fewer rows are computed at once than calibrated, else an empty list."""
        if not self.is_short:
            return []
        return [
            f"{label}: {self.calibration.engine['batch']} images at once do not fit into the memory of {device}; its "
            f"frozen stages run on {self.batch} at a time, so their numbers may differ by rounding from those computed "
            "before"
        ]

    def shape(self, cut: int) -> tuple[int, ...]:
        """Return the shape of one row after ``cut`` stages; of an image for cut 0."""
        side = self.backbone.image_size
        return self.backbone.stages[cut - 1].output_shape if cut else (3, side, side)

    def bytes_per_row(self, cut: int) -> int:
        """Return the size of one stored row."""
        return int(torch.Size(self.shape(cut)).numel()) * torch.finfo(getattr(torch, self.dtype)).bits // 8

    def sha256(self, cut: int) -> str:
        """Return the hash of the tensors of the first ``cut`` stages."""
        if cut not in self._hashes:
            self._hashes[cut] = tensors_hash(frozen_state(self.backbone, cut))
        return self._hashes[cut]

    def starts(self, cut: int) -> tuple[int, ...]:
        """Return the cuts whose rows this cut can be computed from, deepest first; 0 is the image."""
        return (*sorted((low for low, high in self.calibration.chains if high == cut), reverse=True), 0)

    def run(self, rows: Tensor, start: int, stop: int) -> Tensor:
        """Compute rows after ``stop`` stages from rows after ``start`` stages.

        Args:
            rows: (n, *shape(start)) of any dtype.
            start, stop: number of stages before and after.

        Returns:
            (n, *shape(stop)) in ``dtype``.

        Raises:
            ValueError: the stages are not wholly frozen.
            UserError: a number does not fit into float16, or one row does not fit into the device's memory.
        """
        self.forwards += len(rows)
        found = self._fitted(rows.float(), start, stop)
        return found if self.dtype == "float32" else self._halved(found)

    def _fitted(self, rows: Tensor, start: int, stop: int) -> Tensor:
        """Run the engine; if it shares a batch and memory is too short, compute fewer rows at once from now on."""
        if not engines.kind_of(self.calibration.engine).shares_batch:
            return self._engine(start, stop, self.batch)(rows)
        try:
            found, self.batch = halve_until_fits(
                lambda batch: self._engine(start, stop, batch)(rows), self.batch, self.device
            )
            return found
        except OutOfMemory:
            precision = str(self.calibration.engine["precision"])
        raise memory_error(f"frozen stages of {self.backbone.name}", self.backbone.image_size, precision, self.device)

    def _engine(self, start: int, stop: int, batch: int) -> Engine:
        if (start, stop, batch) not in self._engines:
            stages = Frozen([stage.module for stage in self.backbone.stages[start:stop]])
            settings = {**self.calibration.engine, "batch": batch}
            self._engines[start, stop, batch] = engines.build(settings, stages, self.shape(start), self.device)
        return self._engines[start, stop, batch]

    def _halved(self, rows: Tensor) -> Tensor:
        halved = rows.half()
        if bool(halved.isinf().any()):
            raise UserError(
                f"activations: float16, but {self.backbone.name} gives numbers up to {float(rows.abs().max()):.3g}",
                "numbers below 65504",
                "set activations: float32",
            )
        return halved
