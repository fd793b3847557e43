"""``unfreeze demo``: a whole study on built-in data, offline."""

import json
from pathlib import Path
from typing import Annotated

import typer

from unfreeze.cli.commands.run import carry_out
from unfreeze.cli.interrupts import Check, resumable
from unfreeze.cli.options import AsJson


def demo(
    out: Annotated[
        Path, typer.Option(metavar="DIR", help="The study directory; the images go to DIR-data beside it.")
    ] = Path("runs/demo"),
    as_json: AsJson = False,
) -> None:
    """Run a whole study on built-in images, offline, in a few minutes.

    Handwritten digits, three ways of training EfficientNet-Lite0, few and more images, two seeds.
    """

    def work(check: Check) -> None:
        from unfreeze.config.load import preset_text, read_study
        from unfreeze.data.sources.digits import write_digits
        from unfreeze.study.registries import registered

        directory = out.resolve()
        data = directory.with_name(f"{directory.name}-data")
        write_digits(data)
        study = read_study(choices=registered(), preset="demo", values={"data": data})
        text = f"data: {json.dumps('../' + data.name)}\n{preset_text('demo')}"
        carry_out((study, text), out, None, as_json, check, workers=0)  # its images are quick to read

    resumable(work)
