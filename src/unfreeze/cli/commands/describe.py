"""``unfreeze describe``: the stages of a backbone, and where the strategies of a study cut it."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from unfreeze.errors import UserError

if TYPE_CHECKING:
    from unfreeze.config.schema import StudyConfig


def describe(
    backbone: Annotated[str, typer.Argument(metavar="BACKBONE", help="Name of a timm model, for example resnet50.")],
    study: Annotated[
        Path | None, typer.Option(metavar="STUDY", help="Also show which stages each strategy of this study trains.")
    ] = None,
    image_size: Annotated[
        int | None,
        typer.Option(
            metavar="PIXELS", help="Side of the square input.", show_default="the study's, or the model's own"
        ),
    ] = None,
) -> None:
    """Show a backbone's stages: output shape, parameters and FLOPs.

    With --study, also which stages are frozen or trained in each strategy. Nothing is downloaded.
    """
    if image_size is not None and image_size < 1:
        raise UserError(f"--image-size {image_size}", "a number of pixels", "for example --image-size 224")
    from unfreeze.config.load import read_study
    from unfreeze.study.registries import registered

    asked = read_study(study, choices=registered(), values={"backbone": backbone}) if study else None
    cuts = _cuts(asked, backbone) if asked else {}
    size = image_size or (asked.image_size if asked else own_size(backbone))
    from unfreeze.cli import tables
    from unfreeze.model.backbone import load_backbone
    from unfreeze.model.summary import describe as stages_of
    from unfreeze.text import count_text

    loaded = load_backbone(backbone, "none", size, seed=0)
    stages = stages_of(loaded)
    console = tables.stdout()
    console.print(f"{backbone}, {loaded.image_size} x {loaded.image_size} pixels, {loaded.features} features\n")
    numbers = ("output", "parameters", "FLOPs")
    table = tables.new_table("stage", *numbers, *cuts, numbers=numbers)
    for number, stage in enumerate(stages):
        shape = " x ".join(map(str, stage.output_shape))
        states = (states[number] for states in cuts.values())
        table.add_row(stage.name, shape, count_text(stage.params), count_text(stage.flops), *states)
    table.add_section()
    total = count_text(sum(stage.params for stage in stages)), count_text(sum(stage.flops for stage in stages))
    table.add_row("all", "", *total, *([""] * len(cuts)))
    tables.show(console, table)
    console.print("FLOPs: forward pass of one image, a multiply-add counted as two. The head is not included.")


def own_size(name: str) -> int:
    """Return the default input size of a timm model; 224 for an unknown name, which the loader rejects."""
    import timm

    config = timm.get_pretrained_cfg(name) if timm.is_model(name) else None
    return config.input_size[-1] if config else 224


def _cuts(study: "StudyConfig", backbone: str) -> dict[str, list[str]]:
    """Return the state of each stage (frozen, trained, ...) by strategy, and by phase where there are several."""
    from unfreeze.study.network_plan import as_record, make_plan

    plan = make_plan(study, classes=2)  # its head is not shown
    columns = {}
    for name, network in as_record(plan)["networks"].items():
        if network["backbone"] == backbone:
            phases = len(network["phases"])
            for phase in range(phases):
                heading = name if phases == 1 else f"{name} {phase + 1}"
                columns[heading] = [stage["states"][phase] for stage in network["stages"]]
    return columns
