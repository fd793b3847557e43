"""``unfreeze report``: rebuild the report and tables of a study directory."""

from pathlib import Path
from typing import Annotated

import typer

from unfreeze.cli.interrupts import REPEATABLE, resumable

ALTERED_CELL = "a file of this cell is damaged or missing, so the cell is left out; unfreeze run computes it again"

SIDE_BY_SIDE = "report-side-by-side.html"
"""Default page for several studies, in the current directory."""


def report(
    directories: Annotated[list[Path], typer.Argument(metavar="DIR", help="Study directory, or several to compare.")],
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help=f"HTML page to write. Default: DIR/report.html, or {SIDE_BY_SIDE} for several."
        ),
    ] = None,
    by: Annotated[
        str | None,
        typer.Option(
            metavar="COLUMN", help="Also write by_COLUMN.csv: test scores for each value of a column of the data."
        ),
    ] = None,
) -> None:
    """Rebuild the report and tables of a study directory.

    Writes report.html, results.csv and comparisons.csv from the finished cells. With several directories, writes one
    page that shows them side by side, and changes nothing in them.
    """
    resumable(lambda _: _report(directories, out, by), REPEATABLE, anywhere=True)


def _report(directories: list[Path], out: Path | None, by: str | None) -> None:
    from unfreeze.errors import UserError
    from unfreeze.report.page import write_report
    from unfreeze.statistics.scores import by_column
    from unfreeze.statistics.study_results import read_study_results
    from unfreeze.storage.atomic import remove_leftovers, remove_leftovers_of
    from unfreeze.storage.records import write_table
    from unfreeze.storage.study_dir import StudyDir

    if out is not None and out.is_dir():
        raise UserError(
            f"--out {out} is a directory", "a file for the page", f"give a file in it: --out {out / 'report.html'}"
        )
    if len(directories) > 1:
        from unfreeze.report.page import write_side_by_side

        if by:
            raise UserError(
                f"--by {by} with {len(directories)} studies",
                "--by with one study directory",
                f"leave --by out, or run unfreeze report {directories[0]} --by {by}",
            )
        remove_leftovers_of(out or Path(SIDE_BY_SIDE))
        page = write_side_by_side([StudyDir(directory) for directory in directories], out or Path(SIDE_BY_SIDE))
        typer.echo(f"report: {page}")
        return
    directory = directories[0]
    store = StudyDir(directory)
    remove_leftovers(directory)
    if out is not None:
        remove_leftovers_of(out)
    for cell in store.set_aside_altered(store.planned_cells()):
        typer.echo(f"warning: {cell}: {ALTERED_CELL}", err=True)
    evidence = read_study_results(store)
    apart = by_column(store, by) if by else None
    path = write_report(evidence, out)
    write_table(directory / "results.csv", evidence.table)
    write_table(directory / "comparisons.csv", evidence.comparisons)
    if by and apart is not None:
        write_table(directory / f"by_{by}.csv", apart)
        typer.echo(f"by {by}: {directory / f'by_{by}.csv'}")
    typer.echo(f"report: {path}")
