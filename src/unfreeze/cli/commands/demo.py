"""``unfreeze demo``: a complete study on built-in images, offline."""

import json
from pathlib import Path
from typing import Annotated

import typer

from unfreeze.cli.commands.run import carry_out
from unfreeze.cli.interrupts import Check, resumable
from unfreeze.cli.options import AsJson


def demo(
    out: Annotated[
        Path, typer.Option(metavar="DIR", help="Study directory; the images are written to DIR-data beside it.")
    ] = Path("runs/demo"),
    as_json: AsJson = False,
) -> None:
    """Run a complete study on built-in images, offline, in minutes.

    Trains EfficientNet-Lite0 on handwritten digits: three strategies, 10 or 40 images per class, two seeds.
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
