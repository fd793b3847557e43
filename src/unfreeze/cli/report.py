"""``unfreeze report``: write a study's report and results table anew."""

from pathlib import Path
from typing import Annotated

import typer


def report(directory: Annotated[Path, typer.Argument(metavar="DIR", help="A study directory.")]) -> None:
    """Rebuild report.html and results.csv of a study directory from its cells."""
    from unfreeze.results.report import write_report
    from unfreeze.results.tables import results_table
    from unfreeze.store import StudyDir, write_table

    store = StudyDir(directory)
    results = results_table(store)
    path = write_report(store)
    write_table(directory / "results.csv", results)
    typer.echo(f"report: {path}")
