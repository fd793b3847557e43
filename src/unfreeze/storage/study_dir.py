"""The study directory: where each file lies, and which cells are finished."""

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unfreeze.errors import UserError
from unfreeze.storage.atomic import new_folder
from unfreeze.storage.records import ALTERED, _not_whole, is_whole, read_json


@dataclass(frozen=True)
class StudyDir:
    """Paths and records of one study directory."""

    path: Path

    def cell(self, cell_id: str) -> Path:
        """Return the directory of one cell."""
        return self.path / "cells" / cell_id

    @property
    def running(self) -> Path:
        """The directory of the training states of cells that are not finished."""
        return self.path / "running"

    def state(self, cell: str) -> Path:
        """Return the file with the training state of one cell that is not finished."""
        return self.running / f"{cell}.safetensors"

    @contextlib.contextmanager
    def new_cell(self, cell: str, fingerprint: str) -> Iterator[Path]:
        """Yield a temporary folder; on a clean exit it becomes the cell's directory by one rename.

        A cell of this fingerprint that another run has finished meanwhile stays as it is.
        """
        with new_folder(self.cell(cell), lambda: self.finished(cell, fingerprint) is not None) as folder:
            yield folder

    def is_finished(self, cell: Mapping[str, Any]) -> bool:
        """Tell whether a planned cell's files are whole (result.json comes last) and of this very plan.

        A cell that was run with other settings or images has another fingerprint: its files are stale.
        """
        folder = self.cell(cell["cell"])
        whole = (folder / "result.json").is_file() and (folder / "cell.json").is_file()
        return whole and read_json(folder / "cell.json")["fingerprint"] == cell["fingerprint"]

    def finished(self, cell: str, fingerprint: str) -> dict[str, Any] | None:
        """Return the row of results of a cell whose files are whole and have this fingerprint, None of any other."""
        path = self.cell(cell) / "result.json"
        try:
            if not self.is_finished({"cell": cell, "fingerprint": fingerprint}) or not is_whole(path):
                return None
            record = read_json(path)
        except (UserError, OSError):  # another process has it in hand
            return None
        return {name: value for name, value in record.items() if name not in ("format", "warnings", "files")}

    def is_stale(self, cell: Mapping[str, Any]) -> bool:
        """Tell whether a planned cell was finished with other settings or images."""
        return (self.cell(cell["cell"]) / "result.json").is_file() and not self.is_finished(cell)

    def failure(self, cell: Mapping[str, Any]) -> dict[str, Any] | None:
        """Return what a planned cell failed of, None if it did not, or did with other settings or images."""
        path = self.cell(cell["cell"]) / "error.json"
        record = read_json(path) if path.is_file() else None
        if record is None or record.get("fingerprint", cell.get("fingerprint")) != cell.get("fingerprint"):
            return None
        return record

    def set_aside_altered(self, cells: Iterable[Mapping[str, Any]]) -> list[str]:
        """Take the record from each planned cell whose files are not as they were written; return which cells.

        Such a cell counts as not run; its record is kept beside, as ``result.json.altered``. A failed cell's record is
        ``error.json``.
        """
        records = [(cell["cell"], path) for cell in cells for path in self._records(cell["cell"]) if path.is_file()]
        altered = _not_whole(records)
        for _, path in altered:
            with contextlib.suppress(FileNotFoundError):  # another run has replaced the cell meanwhile
                path.replace(path.with_name(path.name + ALTERED))
        return list(dict.fromkeys(cell for cell, _ in altered))

    def _records(self, cell: str) -> tuple[Path, ...]:
        return self.cell(cell) / "result.json", self.cell(cell) / "error.json"

    def planned_cells(self) -> list[dict[str, Any]]:
        """Return the cells of plan.json, in plan order.

        Raises:
            UserError: the directory holds no study.
        """
        plan = self.path / "plan.json"
        if not plan.is_file():
            raise UserError(
                f"{self.path} holds no study: plan.json is missing",
                "a directory that 'unfreeze run' wrote",
                "give the directory that --out named, by default runs/NAME",
            )
        return list(read_json(plan)["cells"])
