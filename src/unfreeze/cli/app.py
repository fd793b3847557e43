"""The `unfreeze` program: its commands, and how errors become messages and exit codes."""

import io
import os
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from unfreeze.cli.commands import cache, check, demo, describe, init, plan, report, run
from unfreeze.cli.tuning import tune_process
from unfreeze.errors import UserError

WRONG_INPUT = 2

EXAMPLES = """\b
Examples:
  unfreeze demo                a first study, without data of your own
  unfreeze check photos        find problems in a folder of images
  unfreeze run photos          compare strategies on it with default settings
  unfreeze init photos         write study.yaml to change the settings
  unfreeze plan study.yaml     preview the study
  unfreeze run study.yaml      run it; run again to resume"""

app = typer.Typer(
    name="unfreeze",
    epilog=EXAMPLES,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        typer.echo(f"unfreeze {version('unfreeze')}")
        raise typer.Exit


@app.callback()
def _program(
    show_version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Compare ways of fine-tuning an image classifier on your own images.

    A study trains each strategy on each amount of data with several seeds, and reports which one to use.
    """
    try:
        os.getcwd()
    except OSError as error:
        raise UserError(
            f"the current folder cannot be used: {(error.strerror or str(error)).lower()}",
            "an existing folder",
            "change to another folder (cd) and run the same command again",
        ) from error


app.command("demo")(demo.demo)
app.command("init")(init.init)
app.command("check")(check.check)
app.command("plan")(plan.plan)
app.command("run")(run.run)
app.command("report")(report.report)
app.command("describe")(describe.describe)
app.add_typer(cache.app, name="cache")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code.

    0: done; 1: a bug, with its traceback; 2: invalid input; 3: some cells failed; 130, 143: interrupted.

    Args:
        arguments: those after the program's name, by default of this process.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):  # file names may hold characters that the terminal cannot show
        sys.stdout.reconfigure(errors="backslashreplace")
    tune_process()
    try:
        app(args=arguments, prog_name="unfreeze")
    except UserError as error:
        print(f"unfreeze: {error}", file=sys.stderr)
        return WRONG_INPUT
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 0
    return 0
