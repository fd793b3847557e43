"""The study directory: paths of its files, and which cells are finished."""

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
        """The directory of training states of unfinished cells."""
        return self.path / "running"

    def state(self, cell: str) -> Path:
        """Return the file of the training state of an unfinished cell."""
        return self.running / f"{cell}.safetensors"

    @contextlib.contextmanager
    def new_cell(self, cell: str, fingerprint: str) -> Iterator[Path]:
        """Yield a temporary folder; on a clean exit it becomes the cell's directory by one rename.

        A cell with this fingerprint that another run has finished meanwhile is kept.
        """
        with new_folder(self.cell(cell), lambda: self.finished(cell, fingerprint) is not None) as folder:
            yield folder

    def is_finished(self, cell: Mapping[str, Any]) -> bool:
        """Tell whether a planned cell is finished (result.json is written last) with the planned fingerprint.

        A cell that was run with other settings or images has another fingerprint and is stale.
        """
        folder = self.cell(cell["cell"])
        whole = (folder / "result.json").is_file() and (folder / "cell.json").is_file()
        return whole and read_json(folder / "cell.json")["fingerprint"] == cell["fingerprint"]

    def finished(self, cell: str, fingerprint: str) -> dict[str, Any] | None:
        """Return the row of results of a finished cell with this fingerprint, else None."""
        path = self.cell(cell) / "result.json"
        try:
            if not self.is_finished({"cell": cell, "fingerprint": fingerprint}) or not is_whole(path):
                return None
            record = read_json(path)
        except (UserError, OSError):  # another process is replacing it
            return None
        return {name: value for name, value in record.items() if name not in ("format", "warnings", "files")}

    def is_stale(self, cell: Mapping[str, Any]) -> bool:
        """Tell whether a planned cell was finished with other settings or images."""
        return (self.cell(cell["cell"]) / "result.json").is_file() and not self.is_finished(cell)

    def failure(self, cell: Mapping[str, Any]) -> dict[str, Any] | None:
        """Return the error record of a planned cell, None without one or if its settings or images were others."""
        path = self.cell(cell["cell"]) / "error.json"
        record = read_json(path) if path.is_file() else None
        if record is None or record.get("fingerprint", cell.get("fingerprint")) != cell.get("fingerprint"):
            return None
        return record

    def set_aside_altered(self, cells: Iterable[Mapping[str, Any]]) -> list[str]:
        """Rename the record of each planned cell whose files were altered; return the ids of these cells.

        Such a cell counts as not run. Its record ``result.json``, or ``error.json`` of a failed cell, is renamed to
        ``result.json.altered``.
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
        """Return the cells of plan.json in order.

        Raises:
            UserError: the directory does not contain a study.
        """
        plan = self.path / "plan.json"
        if not plan.is_file():
            raise UserError(
                f"{self.path} does not contain a study: plan.json is missing",
                "a directory that 'unfreeze run' wrote",
                "give the directory that --out named, by default runs/NAME",
            )
        return list(read_json(plan)["cells"])
