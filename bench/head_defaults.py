"""Which start and learning rate suit a linear head: the measurement behind two defaults (docs/defaults.md).

    python bench/head_defaults.py FOLDER 128 --epochs 10

Features of frozen EfficientNet-Lite0 are computed once for all images; the study's own loop then trains a linear head
on them for each start, learning rate and regime, over three seeds. Prints mean validation loss and accuracy, and mean
and standard deviation of test accuracy.
"""

import argparse
import itertools
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from unfreeze import metrics
from unfreeze.config.load import read_study
from unfreeze.config.resolve import Optimizer, Phase
from unfreeze.config.schema import ScheduleConfig
from unfreeze.data.catalog import build_catalog, rows_of
from unfreeze.data.sources import open_source
from unfreeze.inputs.augment import Preprocessing, ViewDataset
from unfreeze.inputs.loader import Batch, EvaluationBatches, ImageSet, TimedBatch
from unfreeze.inputs.preprocess import DecodedPictures
from unfreeze.inputs.sampler import passes, steps_per_pass
from unfreeze.model.backbone import load_backbone
from unfreeze.study.cell import CellSpec
from unfreeze.study.images import cell_specs, draw_splits
from unfreeze.study.network_plan import make_plan
from unfreeze.study.registries import registered
from unfreeze.train.device import pick
from unfreeze.train.early_stopping import StoppingState
from unfreeze.train.evaluate import predict
from unfreeze.train.gradients import Trainee
from unfreeze.train.micro_batch import MicroBatch
from unfreeze.train.optimizers import build_optimizer
from unfreeze.train.phase_run import PhaseRun, PhaseTask, Position

BACKBONE = "tf_efficientnet_lite0"
REGIMES = {
    "25 a class": {"train_per_class": 25, "val_per_class": 10},
    "80 a class": {"train_per_class": 80, "val_per_class": 20},
    "all": {},
}
BATCH, SEEDS = 32, 3


def jobs_of(folder: str, size: int) -> dict[str, CellSpec]:
    """Draw split and subsets as a study does."""
    names = {name: name.replace(" ", "_") for name in REGIMES}
    study = read_study(
        choices=registered(),
        values={
            "data": folder,
            "backbone": BACKBONE,
            "image_size": size,
            "strategies": {"head": {"train": "head"}},
            "regimes": {names[name]: regime for name, regime in REGIMES.items()},
            "seeds": SEEDS,
        },
    )
    catalog = build_catalog(open_source(study.data, study.tests, Path.cwd()))
    plan = make_plan(study, len(catalog.classes), weights=True)
    splits = draw_splits(study, catalog, plan, {})
    return cell_specs(study, catalog, plan, splits, pick("cpu", "float32"))


def features_of(spec: CellSpec, size: int) -> dict[str, Tensor]:
    """Return the pooled features (features,) of every image that any split uses, by id."""
    backbone = load_backbone(BACKBONE, "pretrained", size, seed=0)
    network = nn.Sequential(*[stage.module for stage in backbone.stages], backbone.pool)
    network.to(memory_format=torch.channels_last)
    used = spec.catalog.images[spec.catalog.images["status"] == "used"]
    weights = backbone.weights
    preprocessing = Preprocessing(size, "crop", weights.mean, weights.std, weights.interpolation, weights.crop_share)
    paths = [spec.catalog.roots[""] / path for path in used["path"]]
    shas = list(used["sha256"])
    views = ViewDataset(DecodedPictures(paths, shas, preprocessing.base), shas, preprocessing, "none", 0)
    images = ImageSet(views, torch.zeros(len(used)).long())
    rows, _ = predict(network, EvaluationBatches(images, workers=1), pick("cpu", "float32"))
    return dict(zip(used["id"], torch.from_numpy(rows), strict=True))


def train_head(
    spec: CellSpec, features: dict[str, Tensor], start: str, lr: float, epochs: int
) -> tuple[float, float, float]:
    """Return validation loss and accuracy, and test accuracy, of the last epoch."""

    def table(ids: tuple[str, ...]) -> tuple[Tensor, Tensor]:
        labels = [spec.catalog.classes.index(label) for label in rows_of(spec.catalog, ids)["label"]]
        return torch.stack([features[name] for name in ids]), torch.tensor(labels)

    (x, y), (val_x, val_y), (test_x, test_y) = map(
        table, (spec.selection.train, spec.selection.validation, spec.selection.tests["test"])
    )
    head = nn.Linear(x.shape[1], len(spec.catalog.classes))
    nn.init.zeros_(head.bias)
    nn.init.zeros_(head.weight)
    if start == "Glorot":
        nn.init.xavier_uniform_(head.weight, generator=torch.Generator().manual_seed(spec.cell.seed))

    def batches() -> Iterator[Batch]:
        for batch in passes(len(x), BATCH, spec.cell.seed):
            indices = torch.tensor([index for index, _ in batch])
            yield x[indices], y[indices], indices

    def scores(inputs: Tensor, labels: Tensor) -> tuple[float, float]:
        with torch.inference_mode():
            logits = head(inputs).numpy()
        return metrics.loss(logits, labels.numpy()), metrics.score("accuracy", logits, labels.numpy())

    optimizer = Optimizer("adamw", lr, momentum=0.9, weight_decay=0.05, layer_decay=1.0)
    steps, phase = (
        steps_per_pass(len(x), BATCH),
        Phase("head", epochs, optimizer, ScheduleConfig(), "frozen", False, 0.0),
    )
    ends = [steps * (epoch + 1) for epoch in range(epochs)]
    run = PhaseRun(
        PhaseTask(0, phase, spec.cell.seed, 1, 0, ends, None, "accuracy"),
        Trainee(head),
        build_optimizer([head], optimizer),
        pick("cpu", "float32"),
        MicroBatch(),
        Position(1, 0, StoppingState()),
    )
    drawn = batches()
    while not run.is_over:
        run.train_step(TimedBatch(next(drawn)))
        if run.epoch_is_over:
            run.validation_step(TimedBatch((val_x, val_y, torch.arange(len(val_x)))))
            run.end_epoch(run.position.totals.examples)
    return *scores(val_x, val_y), scores(test_x, test_y)[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder")
    parser.add_argument("size", type=int)
    parser.add_argument("--epochs", type=int, default=10)
    asked = parser.parse_args()
    specs = jobs_of(asked.folder, asked.size)
    features = features_of(next(iter(specs.values())), asked.size)
    print("| images | start | lr | validation loss | validation accuracy | test accuracy |")
    print("| --- | --- | --- | --- | --- | --- |")
    for regime, start, lr in itertools.product(REGIMES, ("Glorot", "zero"), (3e-4, 1e-3, 3e-3, 1e-2)):
        cells = [f"head.{regime.replace(' ', '_')}.s{seed}" for seed in range(SEEDS)]
        runs = np.array([train_head(specs[cell], features, start, lr, asked.epochs) for cell in cells])
        loss, accuracy, test = runs.mean(axis=0)
        spread = runs[:, 2].std(ddof=1)
        print(f"| {regime} | {start} | {lr:g} | {loss:.3f} | {accuracy:.3f} | {test:.3f} ± {spread:.3f} |", flush=True)


if __name__ == "__main__":
    main()
