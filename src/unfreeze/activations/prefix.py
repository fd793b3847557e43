"""Frozen prefix of a backbone on one engine at one precision; the same numbers live and stored."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from unfreeze.activations import engines
from unfreeze.activations.engine import Engine, Settings
from unfreeze.errors import UserError
from unfreeze.model.backbone import Backbone
from unfreeze.model.memory import OutOfMemory, fitted, no_room
from unfreeze.model.network import Frozen, frozen_state, tensors_hash

TOLERANCE = {"float32": 1e-4, "bfloat16": 2e-2}
"""Largest relative error of an engine against PyTorch in float32, by the precision asked for."""


@dataclass(frozen=True)
class Calibration:
    """What a few images told about the ways of computing a prefix; JSON data but for its type.

    Attributes:
        engine: the engine that was chosen, fixed from then on.
        error: its relative error against PyTorch in float32, at the deepest cut.
        seconds: of one row at the deepest cut by that engine, all threads at work.
        seconds_pytorch: the same in PyTorch, channels-last.
        build: seconds of making the engine for one network.
        chains: pairs of cuts of which the deeper one computed from the shallower one's stored rows is bit-equal to
            computing it from the image.
        refused: engines that were tried in vain, and why.
    """

    engine: Settings
    error: float
    seconds: float
    seconds_pytorch: float
    build: float
    chains: tuple[tuple[int, int], ...] = ()
    refused: Mapping[str, str] | None = None

    def as_record(self) -> dict[str, Any]:
        """Return it as JSON data, as study.json and the cache hold it."""
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
        """Read what ``as_record`` gave."""
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
    """The first stages of a backbone; engines are built when first asked for.

    Args:
        backbone: pretrained, its frozen stages never trained; nothing here changes it.
        calibration: which engine, and which cuts may start from which.
        dtype: in which rows are kept, "float32" or "float16"; live rows are rounded alike.
        device: where it runs.
        built: engines there are already, by their stages' start and stop.
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
        """Rows computed so far, at any cut."""
        self.batch = int(calibration.engine.get("batch", 1))
        """Rows that the engine takes at once; fewer than calibrated where memory did not suffice later on."""
        self._engines = {(*stages, self.batch): engine for stages, engine in (built or {}).items()}
        self._hashes: dict[int, str] = {}

    def take_fewer(self, rows: int) -> None:
        """Take at most so many rows at once from now on, as in an earlier run whose memory ran short."""
        self.batch = min(self.batch, rows)

    @property
    def is_short(self) -> bool:
        """Whether memory suffices for fewer rows at once than calibrated."""
        return self.batch < int(self.calibration.engine.get("batch", 1))

    def said(self, label: str, device: str) -> list[str]:
        """Return what fewer rows at once than calibrated mean for the numbers of the stages called ``label``."""
        if not self.is_short:
            return []
        return [
            f"{label}: {self.calibration.engine['batch']} images at once do not fit into the memory of {device}; its "
            f"frozen stages run on {self.batch} at a time, so their numbers may differ by rounding from those computed "
            "before"
        ]

    def shape(self, cut: int) -> tuple[int, ...]:
        """Return the shape of one row after ``cut`` stages; before the first it is the image's."""
        side = self.backbone.image_size
        return self.backbone.stages[cut - 1].output_shape if cut else (3, side, side)

    def bytes_per_row(self, cut: int) -> int:
        """Return the bytes of one stored row."""
        return int(torch.Size(self.shape(cut)).numel()) * torch.finfo(getattr(torch, self.dtype)).bits // 8

    def sha256(self, cut: int) -> str:
        """Return the hash over the tensors of the first ``cut`` stages."""
        if cut not in self._hashes:
            self._hashes[cut] = tensors_hash(frozen_state(self.backbone, cut))
        return self._hashes[cut]

    def starts(self, cut: int) -> tuple[int, ...]:
        """Return the cuts whose stored rows this one may be computed from, deepest first; 0 is the image."""
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
            UserError: a number does not fit into float16, or not even one row into the device's memory.
        """
        self.forwards += len(rows)
        found = self._fitted(rows.float(), start, stop)
        return found if self.dtype == "float32" else self._halved(found)

    def _fitted(self, rows: Tensor, start: int, stop: int) -> Tensor:
        """Run the engine; one that shares a batch takes fewer rows at once from where memory does not suffice on."""
        if not engines.kind_of(self.calibration.engine).shares_batch:
            return self._engine(start, stop, self.batch)(rows)
        try:
            found, self.batch = fitted(lambda batch: self._engine(start, stop, batch)(rows), self.batch, self.device)
            return found
        except OutOfMemory:
            precision = str(self.calibration.engine["precision"])
        raise no_room(f"frozen stages of {self.backbone.name}", self.backbone.image_size, precision, self.device)

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
                "say activations: float32",
            )
        return halved
