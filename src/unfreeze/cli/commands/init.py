"""``unfreeze init``: write a commented study file for a data set."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from unfreeze.cli.options import AsJson, Overrides, given_data, study_name
from unfreeze.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Collection

    from unfreeze.data.sources.source import Source
    from unfreeze.data.summary import Pools


BACKBONE = "tf_efficientnet_lite0"
"""Default backbone; its weights are installed with the package."""

SIZE = 128
"""Input size for the default backbone: a quarter of the work of 256, and nearly as accurate on photographs."""

OF_DATA = ("labels_from", "columns", "check", "tests")
"""Keys that ``--set`` can add to the file."""

STEPS = (5, 10, 20, 50, 100, 200, 500, 1000)
"""Numbers of training images per class to choose regimes from."""


def init(
    data: Annotated[str, typer.Argument(metavar="DATA", help="Images: a folder of class folders, or a table.")],
    backbone: Annotated[str, typer.Option(metavar="NAME", help="Pretrained network, by its timm name.")] = BACKBONE,
    out: Annotated[Path, typer.Option(metavar="FILE", help="Study file to write.")] = Path("study.yaml"),
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Write a commented study file for your images.

    An existing file is never overwritten.
    """
    if out.exists():
        raise UserError(f"{out} already exists", "a new file", "choose another with --out FILE, or move this one away")
    from unfreeze.cli import tables
    from unfreeze.config.load import read_study
    from unfreeze.config.schema import SplitConfig
    from unfreeze.data.sources import source_of
    from unfreeze.data.summary import layout, lines, pools_by_class, refuse_unusable
    from unfreeze.storage.atomic import remove_leftovers_of, write_text
    from unfreeze.study.registries import registered

    further = _further_lines(overrides or [])
    data = given_data(data)
    study = read_study(choices=registered(), preset="quick", values={"data": data}, overrides=overrides or ())
    remove_leftovers_of(out)
    source = source_of(study, Path.cwd())
    if not as_json:
        console = tables.stdout()
        for line in lines(study.data, source, SplitConfig(), study.tests):
            console.print(tables.one_line(line))
    refuse_unusable(source, study.check)
    size = _checked_size(backbone)
    pools = pools_by_class(source, SplitConfig())
    text = study_text(_where(data, out), study_name(Path(data)), backbone, size, source, pools, further)
    write_text(out, text)
    if as_json:
        typer.echo(
            json.dumps({"wrote": str(out), "layout": layout(source, SplitConfig())}, ensure_ascii=False, indent=1)
        )
    else:
        typer.echo(f"wrote {out}\npreview:  unfreeze plan {out}\nrun:      unfreeze run {out}")


def _further_lines(overrides: list[str]) -> str:
    """Return study file lines for the ``--set`` values about how the data is read.

    Raises:
        UserError: a value is set that the file has a line for.
    """
    from unfreeze.config.load import overridden
    from unfreeze.study.registries import registered

    values = overridden(overrides, registered())
    written = [key for key in values if key not in OF_DATA]
    if written:
        raise UserError(
            f"--set {', '.join(written)}: already in the file that init writes",
            f"settings about how the data is read: {', '.join(OF_DATA)}",
            "leave it out, and edit the line in the file",
        )
    return "".join(f"{key}: {json.dumps(value, ensure_ascii=False)}\n" for key, value in values.items())


def _checked_size(backbone: str) -> int:
    """Return the input size for a backbone; building it rejects an unknown name."""
    if backbone == BACKBONE:
        return SIZE
    from unfreeze.cli.commands.describe import own_size
    from unfreeze.model.backbone import load_backbone

    return load_backbone(backbone, "none", own_size(backbone), seed=0).image_size


def _where(data: str, out: Path) -> str:
    """Return the data path for the study file: relative where the data is in or below the file's folder."""
    from unfreeze.config.choices import is_named
    from unfreeze.study.registries import registered

    if is_named(data, registered().sources):
        return data
    folder, home = Path(data).expanduser().resolve(), out.resolve().parent
    return folder.relative_to(home).as_posix() if folder.is_relative_to(home) else str(folder)


def study_text(
    data: str, name: str, backbone: str, image_size: int, source: "Source", pools: "dict[str, Pools]", further: str = ""
) -> str:
    """Return a study file for a data set: YAML with a comment for each key."""
    from unfreeze.data.summary import range_text
    from unfreeze.study.registries import registered
    from unfreeze.text import plural

    choices = registered()
    sizes = {label: pool.files for label, pool in pools.items()}
    files = sum(sizes.values())
    given = sorted({item.given_split for item in source.items} - {""})
    return _TEMPLATE.format(
        about=" ".join(f"{plural(files, 'file')} in {len(pools)} classes, {range_text(sizes)}".split()),
        name=json.dumps(name),
        data=json.dumps(data),
        further=further,
        split=_GIVEN_SPLIT.format(", ".join(given)) if given else _DRAWN_SPLIT,
        backbone=json.dumps(backbone),
        image_size=image_size,
        regimes=_regimes(pools, choices.augmentations),
        metrics=" | ".join(choices.metrics),
    )


def _regimes(pools: "dict[str, Pools]", augmentations: "Collection[str]") -> str:
    """Return regimes that every class can fill: a small one, one near the smallest class, and all images."""
    least = min(pool.train for pool in pools.values())
    sizes = [step for step in STEPS if step <= 0.8 * least]  # the split is drawn, so a class may get somewhat fewer
    chosen = sorted(
        {max((step for step in sizes if step <= sizes[-1] / 4), default=sizes[0]), sizes[-1]} if sizes else ()
    )
    lines = [f"  images_{size}: {{train_per_class: {size}}}   # {size} training images per class" for size in chosen]
    if chosen:
        few = f"images_{chosen[0]}_augmented: {{train_per_class: {chosen[0]}, augment: trivial}}"
        lines += [
            "  # Does augmentation make up for missing images? Uncomment the next line to find out.",
            f"  # {few}   # {' | '.join(augmentations)}",
        ]
    lines.append("  all_images: {}   # all training images")
    return "\n".join(lines)


_DRAWN_SPLIT = """\
# Each image is assigned to one split, by its content. Identical files stay together.
split:
  test: 0.2    # share of the images for the final score, which choose nothing
  val: 0.15    # share of the images to choose the best epoch and strategy; the rest is for training
  # group: "(patient[0-9]+)"   # images with the same match in their path stay in one split"""

_GIVEN_SPLIT = """\
# The folders define the splits ({}). If there is one folder beside the training images, it is the
# test set, whatever its name, and validation images are drawn from the training images:
split: {{val: 0.15}}   # a share of all images; given: use that folder for validation, without a test set"""

_TEMPLATE = """\
# A study compares strategies (ways of training) on regimes (amounts of data). Data: {about}.
#   unfreeze plan FILE   previews what will run
#   unfreeze run FILE    runs it, or resumes it after an interruption

name: {name}   # name of the directory with the results: runs/NAME
data: {data}   # a folder with one subfolder of images per class; relative to this file
{further}
{split}

# The metric: {metrics}. The default is accuracy, but if the
# largest class has three times the images of the smallest, the answer starts with balanced accuracy.
# metric: accuracy
backbone: {backbone}   # pretrained network, by its timm name; 'unfreeze describe NAME' shows its stages
image_size: {image_size}       # side of the input in pixels; larger is slower, and often more accurate
resize: crop          # crop to the centre | squash to a square | pad with borders

# Ways of training. Each strategy is combined with each regime and each seed.
strategies:
  scratch:             # no pretrained weights, to see what pretraining is worth
    weights: none      # start from random weights
    train: all         # train everything
  head:                # the network is frozen, only a new last layer is trained; the fastest
    train: head
  last_quarter:        # also trains the last quarter of the network's stages
    train: {{last: 0.25}}
  fine_tune:           # trains everything, in two phases
    phases:
      - {{train: head, epochs: 2}}   # first the new last layer alone, which protects the pretrained weights
      - {{train: all, epochs: 8}}    # then everything, with a small learning rate

# Amounts of data. The images of a smaller regime are among those of a larger one.
regimes:
{regimes}

seeds: 3              # repetitions with other images, initial weights and orders, which show the variation
batch_size: 32        # images per training step
epochs: 10            # passes over the images, for strategies without their own
early_stopping:       # stop when validation does not improve, and keep the best epoch
  monitor: val_loss   # monitored value: val_loss | val_accuracy | val_metric | train_loss
  patience: 5         # epochs in a row without improvement
"""
