"""``unfreeze check``: find problems in the data before training."""

import json
from collections import Counter
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from unfreeze.cli.interrupts import Check, resumable
from unfreeze.cli.options import AsJson, Overrides, Target, asked_study
from unfreeze.errors import UserError

if TYPE_CHECKING:
    from unfreeze.config.schema import StudyConfig
    from unfreeze.data.catalog import Catalog
    from unfreeze.data.quality import Finding
    from unfreeze.data.sources.source import Source


PAGE = Path("check.html")

SHOWN, OF_A_KIND = 12, 4
"""Largest number of findings printed, in total and of one kind, so that no kind hides the others; the page has all."""


def check(
    target: Target,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="HTML page to write. With --json none is written unless this is given.",
            show_default=str(PAGE),
        ),
    ] = None,
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Check images for unreadable files, duplicates and wrong labels.

    Every file is read once. Findings are printed, and shown with their images on an HTML page.
    """
    page = PAGE if out is None and not as_json else out
    resumable(lambda may_end: _check(target, page, overrides, as_json, may_end))


def _check(target: str, out: Path | None, overrides: list[str] | None, as_json: bool, may_end: Check) -> None:
    study, asked = asked_study(target, None, None, None, overrides)
    from unfreeze.cli import tables
    from unfreeze.data.quality import findings, worst_first
    from unfreeze.data.sources import source_of
    from unfreeze.data.subset import shortfalls
    from unfreeze.data.summary import layout, lines, refuse_none_used, refuse_unusable
    from unfreeze.report.check_page import write_check_page
    from unfreeze.storage.atomic import remove_leftovers_of
    from unfreeze.storage.cache import refuse_inside

    if out is not None:
        if out.is_dir():
            raise UserError(
                f"--out {out} is a directory", "a file, or a path where one can be made", "give another --out FILE"
            )
        refuse_inside(out, "page", "a file", "--out FILE", (study.data, *study.tests.values()))
        remove_leftovers_of(out)
    source = source_of(study, Path.cwd())
    if not as_json:
        console = tables.stdout()
        for line in lines(study.data, source, study.split, study.tests):
            console.print(tables.one_line(line))
    refuse_unusable(source, study.check)
    catalog, warnings = _scan(study, source, may_end)
    refuse_none_used(source, catalog)
    # Without a study file, no image size and no class size is required.
    size, folds = (study.image_size, study.split.folds is not None) if asked else (None, True)
    found = findings(catalog, size, folds, study.split)
    if asked:
        found = worst_first([*found, *shortfalls(catalog, study.split, study.regimes)])
    understood = layout(source, study.split, catalog)
    if out is not None:
        write_check_page(out, study.name, catalog, found)
    _print_result(understood, catalog, found, warnings, out, as_json)


def _print_result(
    understood: dict[str, Any],
    catalog: "Catalog",
    found: "list[Finding]",
    warnings: list[str],
    page: Path | None,
    as_json: bool,
) -> None:
    from unfreeze.text import plural

    if as_json:
        record = _as_json(catalog, found) | {"layout": understood}
        typer.echo(json.dumps(record, ensure_ascii=False, indent=1))
    else:
        _print(catalog, found)
    for text in warnings:
        typer.echo(f"warning: {text}", err=as_json)
    if not as_json:
        typer.echo(f"{plural(len(found), 'finding')} with images: {page}" if found else f"wrote {page}")


def _scan(study: "StudyConfig", source: "Source", may_end: Check) -> "tuple[Catalog, list[str]]":
    """Read every file once, with a progress bar on a terminal; return the catalog and warnings about the cache.

    ``may_end`` is called after each file and each comparison: what was read so far is in the scan cache.
    """
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

    from unfreeze.cli import tables
    from unfreeze.data.catalog import build_catalog
    from unfreeze.data.scan import Callbacks
    from unfreeze.data.scan_cache import CacheNotWritten
    from unfreeze.storage.atomic import remove_leftovers
    from unfreeze.storage.cache import scanning, usable_cache

    warnings: list[str] = []
    cache = usable_cache(warnings.append)
    if cache:
        remove_leftovers(cache)
    console = tables.stderr()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    waited = False
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as bars:

        def wait() -> None:
            nonlocal waited
            if not waited:
                console.print("waiting for another process that reads the same images")
            waited = True
            may_end()

        def progress(task: TaskID, done: int, total: int) -> None:
            bars.update(task, completed=done, total=total)
            may_end()

        with scanning(cache, source.roots.values(), wait) if cache else nullcontext():
            catalog = partial(
                build_catalog,
                source,
                study.split.group,
                check=study.check,
                callbacks=Callbacks(
                    progress=partial(progress, bars.add_task("reading images", total=None)),
                    comparing=partial(progress, bars.add_task("comparing", total=None)),
                ),
            )
            try:
                return catalog(scan_cache=cache / "looks" if cache else None), warnings
            except CacheNotWritten as error:  # rare: read once more without the cache
                warnings.append(
                    f"the scan cache is incomplete, so the next check reads some images again: {error.given}"
                )
                return catalog(scan_cache=None), warnings


def _as_json(catalog: "Catalog", found: "list[Finding]") -> dict[str, Any]:
    from unfreeze.data.quality import path_of
    from unfreeze.report.check_page import summary_of

    return {
        **summary_of(catalog),
        "findings": [
            {
                "kind": finding.kind,
                "severity": finding.severity,
                "count": len(finding.rows),
                "images": [path_of(catalog, row) for row in finding.rows],
                "note": finding.note,
            }
            for finding in found
        ],
        "ignored_because": dict(Counter(catalog.images.query("status == 'ignored'")["reason"]).most_common()),
    }


def _print(catalog: "Catalog", found: "list[Finding]") -> None:
    from unfreeze.cli import tables
    from unfreeze.data.quality import path_of
    from unfreeze.report.check_page import summary_of
    from unfreeze.text import plural

    summary = summary_of(catalog)
    console = tables.stdout()
    parts = [f"{summary[key]:,} {word}" for key, word in (("set_aside", "set aside"), ("ignored", "ignored"))]
    console.print(
        f"{plural(summary['images'], 'file')} in {len(catalog.classes)} classes: {summary['used']:,} used, "
        f"{', '.join(parts)}"
    )
    for sentence in catalog.guessed:
        console.print(tables.one_line(f"guessed: {sentence}"))
    console.print()
    if not found:
        console.print("no problems found")
        return
    table = tables.new_table("severity", "finding", "images", "what", "first", numbers=("images",))
    counts, shown, rest = Counter[str](), 0, Counter[str]()
    for finding in found:
        counts[finding.kind] += 1
        if shown == SHOWN or counts[finding.kind] > OF_A_KIND:
            rest[finding.kind] += 1
            continue
        shown += 1
        images = f"{len(finding.rows):,}"
        note = tables.one_line(finding.note)
        first = tables.one_line(path_of(catalog, finding.rows[0])) if finding.rows else ""
        table.add_row(finding.severity, finding.kind, images, note, first)
    tables.show(console, table)
    if rest:
        console.print(f"and {', '.join(f'{count:,} more of {kind}' for kind, count in rest.items())}\n")
