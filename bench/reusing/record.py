"""The record of all runs that a row of a table rests on, and the tables in the README, one a machine."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from reusing.rows import ROWS, latest, table

BEGIN, END = "<!-- reuse.py writes from here -->", "<!-- to here -->"

Runs = dict[str, dict[str, Any]]
"""Runs by their date: command, hardware, versions, and every measurement."""


def read(path: Path) -> Runs:
    """Return the recorded runs; none without a record."""
    return json.loads(path.read_text(encoding="utf-8"))["runs"] if path.exists() else {}


def write(path: Path, runs: Runs) -> Runs:
    """Replace the record, whole or not at all; return the runs."""
    path.parent.mkdir(exist_ok=True)
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps({"format": 1, "runs": _rounded(runs)}, indent=1) + "\n", encoding="utf-8")
    os.replace(temporary, path)
    return runs


def by_machine(runs: Runs) -> dict[str, Runs]:
    """Return the runs of each processor and number of cores, that of the newest run first."""
    found: dict[str, Runs] = {}
    for date, run in sorted(runs.items(), reverse=True):
        found.setdefault(f"{run['processor']}, {run['cores']} cores", {})[date] = run
    return {machine: dict(sorted(there.items())) for machine, there in found.items()}


def used(runs: Runs, newest: str) -> Runs:
    """Return the runs that a row of a table rests on, and the newest, which may have told only what failed."""
    names = {latest(row, there)[0] for there in by_machine(runs).values() for row in ROWS} | {newest}
    return {name: run for name, run in runs.items() if name in names}


def tables(runs: Runs) -> str:
    """Return a table for each machine, with the runs behind it."""
    return "\n\n".join(
        "\n\n".join((f"### {machine}", table(there), "\n".join(f"- {_about(run)}" for run in there.values())))
        for machine, there in by_machine(runs).items()
    )


def write_tables(readme: Path, written: str) -> None:
    """Put the tables between the two marks in the README."""
    text = readme.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    after = rest.partition(END)[2]
    readme.write_text(f"{before}{BEGIN}\n\n{written}\n\n{END}{after}", encoding="utf-8")


def _about(run: Mapping[str, Any]) -> str:
    versions = dict(run["versions"])
    for measured in run["measurements"]:
        versions |= {name: version for name, version in measured.get("versions", {}).items() if name not in versions}
    listed = ", ".join(f"{name} {version}" for name, version in versions.items())
    rounds = len({measured["round"] for measured in run["measurements"]})
    counted = "1 round" if rounds == 1 else f"{rounds} rounds"
    return f"{run['date']}, `{run['command']}`, {counted}: Python {run['python']}, {listed}."


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, 4)
    if isinstance(value, dict):
        return {key: _rounded(entry) for key, entry in value.items()}
    return [_rounded(entry) for entry in value] if isinstance(value, list) else value
