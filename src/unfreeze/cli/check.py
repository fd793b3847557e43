"""``unfreeze check``: what is wrong with the data, before anything trains."""

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
    from unfreeze.config.study import StudyConfig
    from unfreeze.data.catalog import Catalog
    from unfreeze.data.check import Finding

SHOWN, OF_A_KIND = 12, 4
"""Findings in the table on a terminal, in all and of one kind, so that many of one hide no other; the page has all."""


def check(
    target: Target,
    out: Annotated[Path, typer.Option(metavar="FILE", help="The page to write.")] = Path("check.html"),
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Look at every file once, say what is wrong with the data, and write a page of what to look at."""
    resumable(lambda may_end: _check(target, out, overrides, as_json, may_end))


def _check(target: str, out: Path, overrides: list[str] | None, as_json: bool, may_end: Check) -> None:
    study, asked = asked_study(target, None, None, None, overrides)
    from unfreeze.cli.thumbnails import thumbnails
    from unfreeze.data.check import findings, worst_first
    from unfreeze.data.shortfall import shortfalls
    from unfreeze.data.sources import refuse_inside
    from unfreeze.durable import remove_leftovers_of
    from unfreeze.results.check_page import write_check_page
    from unfreeze.results.words import plural

    if out.is_dir():
        raise UserError(
            f"--out {out} is a directory", "a file, or a path where one can be made", "give another --out FILE"
        )
    refuse_inside(out, "page", "a file", "--out FILE", (study.data, *study.tests.values()))
    remove_leftovers_of(out)
    told: list[str] = []
    catalog = _look(study, told, may_end)
    # Without a study file nobody said how large pictures and classes have to be.
    size, folds = (study.image_size, study.split.folds is not None) if asked else (None, True)
    found = findings(catalog, size, folds, study.split)
    if asked:
        found = worst_first([*found, *shortfalls(catalog, study.split, study.regimes)])
    page = write_check_page(out, study.name, _summary(catalog), *thumbnails(catalog, found), _ignored(catalog))
    if as_json:
        typer.echo(json.dumps(_as_json(catalog, found), ensure_ascii=False, indent=1))
    else:
        _print(catalog, found)
    for text in told:
        typer.echo(f"warning: {text}", err=as_json)
    if not as_json:
        typer.echo(f"look at {plural(len(found), 'finding')}: {page}" if found else f"wrote {page}")


def _look(study: "StudyConfig", told: list[str], may_end: Check) -> "Catalog":
    """Look at every file, with a bar on a terminal; what is wrong with the cache is told.

    After each file, and each comparison, it may end: what was seen so far is remembered.
    """
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

    from unfreeze.cli import screen
    from unfreeze.data.cache import looking
    from unfreeze.data.catalog import build_catalog
    from unfreeze.data.lines import Unremembered
    from unfreeze.data.sources import open_source, usable_cache
    from unfreeze.durable import remove_leftovers

    cache = usable_cache(told.append)
    if cache:
        remove_leftovers(cache)
    source = open_source(study.data, study.tests, Path.cwd(), study.check.follow_symlinks, study.columns)
    console = screen.stderr()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    waited = False
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as bars:

        def wait() -> None:
            nonlocal waited
            if not waited:
                console.print("waiting for another process, which looks at the same images")
            waited = True
            may_end()

        def progress(task: TaskID, done: int, total: int) -> None:
            bars.update(task, completed=done, total=total)
            may_end()

        with looking(cache, source.roots.values(), wait) if cache else nullcontext():
            catalog = partial(
                build_catalog,
                source,
                study.split.group,
                partial(progress, bars.add_task("reading images", total=None)),
                check=study.check,
                comparing=partial(progress, bars.add_task("comparing", total=None)),
            )
            try:
                return catalog(looks=cache / "looks" if cache else None)
            except Unremembered as error:  # looked at once more, which is seldom, and slower than to remember
                told.append(f"not all that was seen of the images is kept for the next time: {error.given}")
                return catalog(looks=None)


def _summary(catalog: "Catalog") -> dict[str, Any]:
    counts = Counter(catalog.images["status"])
    return {
        "images": len(catalog.images),
        "used": counts["used"],
        "set_aside": counts["set_aside"],
        "ignored": counts["ignored"],
        "classes": {
            label: int(count)
            for label, count in catalog.images.query("status == 'used' and source == ''")["label"]
            .value_counts()
            .reindex(list(catalog.classes), fill_value=0)
            .items()
        },
    }


def _ignored(catalog: "Catalog") -> str:
    """Say why files and folders are ignored, and for each reason which is the first."""
    from unfreeze.data.check import path_of

    ignored = catalog.images[catalog.images["status"] == "ignored"]
    first = {reason: path_of(catalog, rows[0]) for reason, rows in ignored.groupby("reason").groups.items()}
    counts = Counter(ignored["reason"]).most_common()
    return ", ".join(f"{count:,} {reason} (first {first[reason]})" for reason, count in counts)


def _as_json(catalog: "Catalog", found: "list[Finding]") -> dict[str, Any]:
    from unfreeze.data.check import path_of

    return {
        **_summary(catalog),
        "findings": [
            {
                "kind": one.kind,
                "severity": one.severity,
                "count": len(one.rows),
                "images": [path_of(catalog, row) for row in one.rows],
                "note": one.note,
            }
            for one in found
        ],
        "ignored_because": dict(Counter(catalog.images.query("status == 'ignored'")["reason"]).most_common()),
    }


def _print(catalog: "Catalog", found: "list[Finding]") -> None:
    from unfreeze.cli import screen
    from unfreeze.data.check import path_of
    from unfreeze.results.words import plural

    summary = _summary(catalog)
    console = screen.stdout()
    parts = [f"{summary[key]:,} {word}" for key, word in (("set_aside", "set aside"), ("ignored", "ignored"))]
    console.print(
        f"{plural(summary['images'], 'file')} in {len(catalog.classes)} classes: {summary['used']:,} used, "
        f"{', '.join(parts)}"
    )
    if summary["ignored"]:
        console.print(f"ignored: {screen.one_line(_ignored(catalog))}")
    console.print()
    if not found:
        console.print("nothing found that is wrong")
        return
    made = screen.table("severity", "finding", "images", "what", "first", numbers=("images",))
    counts, shown, rest = Counter[str](), 0, Counter[str]()
    for one in found:
        counts[one.kind] += 1
        if shown == SHOWN or counts[one.kind] > OF_A_KIND:
            rest[one.kind] += 1
            continue
        shown += 1
        first = path_of(catalog, one.rows[0]) if one.rows else ""
        made.add_row(one.severity, one.kind, f"{len(one.rows):,}", screen.one_line(one.note), screen.one_line(first))
    screen.show(console, made)
    if rest:
        console.print(f"and {', '.join(f'{count:,} more of {kind}' for kind, count in rest.items())}\n")
