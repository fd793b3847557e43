"""``unfreeze report``: write a study's report and tables anew."""

from pathlib import Path
from typing import Annotated

import typer

from unfreeze.cli.interrupts import BEGINS_ANEW, resumable

ALTERED_CELL = "a file of this cell was altered or lost, so it is left out; unfreeze run makes it again"

SIDE_BY_SIDE = "report-side-by-side.html"
"""The page of several studies, in the current directory."""


def report(
    directories: Annotated[list[Path], typer.Argument(metavar="DIR...", help="One study directory or several.")],
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help=f"Where the page goes: by default into DIR, of several to ./{SIDE_BY_SIDE}."),
    ] = None,
    by: Annotated[
        str | None,
        typer.Option(metavar="COLUMN", help="Also write by_COLUMN.csv: test scores apart for each value of a column."),
    ] = None,
) -> None:
    """Rebuild report.html, results.csv and comparisons.csv of a study directory from its cells.

    Several directories are set side by side on one page; nothing is written into them.
    """
    resumable(lambda _: _report(directories, out, by), BEGINS_ANEW, anywhere=True)


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
            f"--out {out} is a directory", "a file for the page", f"name one in it: --out {out / 'report.html'}"
        )
    if len(directories) > 1:
        from unfreeze.report.page import write_side_by_side

        if by:
            raise UserError(
                f"--by {by} with {len(directories)} studies",
                "--by with one study directory",
                f"leave --by out, or say unfreeze report {directories[0]} --by {by}",
            )
        remove_leftovers_of(out or Path(SIDE_BY_SIDE))
        page = write_side_by_side([StudyDir(one) for one in directories], out or Path(SIDE_BY_SIDE))
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
