"""``unfreeze run``: run or resume a study, and print its results."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from unfreeze.cli.interrupts import Check, resumable
from unfreeze.cli.options import (
    AsJson,
    BackboneName,
    Out,
    Overrides,
    Parallel,
    Preset,
    Seeds,
    Target,
    Time,
    asked_study,
)

if TYPE_CHECKING:
    from unfreeze.config.schema import StudyConfig
    from unfreeze.events import Checked
    from unfreeze.study.run import Outcome


SOME_CELLS_FAILED = 3


def run(
    target: Target,
    out: Out = None,
    preset: Preset = None,
    backbone: BackboneName = None,
    seeds: Seeds = None,
    time: Time = None,
    parallel: Parallel = 1,
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Run a study, or resume it: finished cells are kept.

    With images in place of a study file, runs the preset quick on them, or the one of --preset. Writes results.csv and
    report.html to the study directory. Exit codes: 0 finished, 2 invalid input, 3 some cells failed, 130 or 143
    interrupted (run the same command again to resume).
    """

    def work(check: Check) -> None:
        asked = asked_study(target, preset, backbone, seeds, overrides)
        carry_out(asked, out or Path("runs") / asked[0].name, time, as_json, check, parallel=parallel)

    resumable(work)


def carry_out(
    asked: "tuple[StudyConfig, str]",
    out: Path,
    time: str | None,
    as_json: bool,
    check: Check,
    workers: int | None = None,
    parallel: int = 1,
) -> None:
    """Run a study in a directory with a progress display, write its report and print its results.

    Args:
        asked: the study, and the text of its study file, "" without one.
        out: the study directory.
        time: the time limit as given; by default the study's.
        as_json: print JSON in place of tables.
        check: called at each event, where the run can be interrupted safely.
        workers: processes that prepare batches; does not change results.
        parallel: processes that run cells; does not change results.

    Raises:
        UserError: the study, its data or the directory is invalid.
        typer.Exit: some cells failed; code 3.
    """
    from unfreeze.cli.live import is_terminal, watching
    from unfreeze.cli.progress import Board
    from unfreeze.config.resolve import candidates, expected_epochs
    from unfreeze.study.registries import registered

    study, text = asked
    settings = {name: next(iter(candidates(study, name, registered()).values())) for name in study.strategies}
    epochs = {name: expected_epochs(strategy) for name, strategy in settings.items()}
    board = Board(study.metric, epochs, lambda cell: _record(out, cell))
    with watching(board, is_terminal() and not as_json, check) as emit:
        from unfreeze.config.units import parse_duration
        from unfreeze.events import Checked, Event
        from unfreeze.report.page import write_report
        from unfreeze.study.run import run_study

        seconds = None if time is None else parse_duration(time)
        checked: list[Checked] = []

        def tell(event: Event) -> None:
            if isinstance(event, Checked):
                checked.append(event)
            emit(event)

        outcome = run_study(study, out, tell, text, workers, seconds, parallel)
        report = write_report(outcome.results)
    if as_json:
        typer.echo(json.dumps(_as_json(outcome, checked[-1], report), ensure_ascii=False, indent=1))
    else:
        _print_outcome(outcome, checked[-1], report, board.errors, _already(board))
    if outcome.failed:
        raise typer.Exit(SOME_CELLS_FAILED)


def _record(out: Path, cell: str) -> Mapping[str, Any]:
    from unfreeze.storage.records import read_json
    from unfreeze.storage.study_dir import StudyDir

    return read_json(StudyDir(out).cell(cell) / "result.json")


def _already(board: Any) -> str:
    from unfreeze.cli.progress import planned_line

    finished = len(board.in_state("earlier"))
    return planned_line(len(board.cells), finished) if finished else ""


def _as_json(outcome: "Outcome", checked: "Checked", report: Path) -> dict[str, Any]:
    from unfreeze.cli.findings import worst
    from unfreeze.report.answer import answer, as_record
    from unfreeze.report.answer_text import facts, headline

    evidence = outcome.results
    results, answered = evidence.table, answer(evidence)
    rows = results.astype(object).where(results.notna(), None).to_dict("records")
    return {
        "study": evidence.name,
        "directory": str(evidence.study.path),
        "cells": results["cell"].tolist(),
        "failed": list(outcome.failed),
        "left": list(outcome.left_out),
        "warnings": list(evidence.warnings),
        "findings": worst(checked),
        "check_page": str(checked.page) if checked.has_page else None,
        "headline": headline(answered),
        "results": rows,
        "report": str(report),
        "recommended": as_record(answered),
        "answer": [
            {"key": fact.key, "label": fact.label, "value": fact.value, "detail": fact.detail}
            for fact in facts(answered)
        ],
        "conclusions": [conclusion.text for conclusion in answered.conclusions],
        "layout": outcome.layout,
    }


def _print_outcome(
    outcome: "Outcome", checked: "Checked", report: Path, errors: Mapping[str, str], already: str
) -> None:
    from rich.text import Text

    from unfreeze.cli import tables
    from unfreeze.cli.findings import found_lines
    from unfreeze.cli.tables import answer_lines, summary
    from unfreeze.report.answer import answer
    from unfreeze.text import plural

    console = tables.stdout()
    evidence = outcome.results
    if already:
        console.print(already + "\n")
    tables.show(console, summary(evidence.table, evidence.metric, console))
    for line in answer_lines(answer(evidence)):
        console.print(line)
    console.print()
    for cell, error in errors.items():
        console.print(Text(f"failed: {cell}: {error}", style="red"))
    if errors:
        console.print(f"Run the same command again to retry {plural(len(errors), 'failed cell')}.\n")
    found = list(found_lines(checked))
    notes = [*evidence.record["notes"], *evidence.warnings]
    notes = [note for note in notes if not any(note in line for line in found)]  # say each once
    for note in notes:
        console.print(Text(f"warning: {note}", style="yellow"))
    if notes:
        console.print()
    for text in found:
        console.print(Text(text))
    if checked.has_page:
        console.print()
    if outcome.left_out:
        cells = plural(len(outcome.left_out), "cell")
        console.print(f"{cells} did not fit into the time limit; run the same command without --time to finish.\n")
    console.print(f"report: {report}")
