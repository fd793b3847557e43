"""The least that the work can cost: a bare pass of the best engine, and the trained steps in a bare loop.

    python bench/reusing/bare.py bound FOLDER --weights FILE --strategy head --epochs 10
    python bench/reusing/bare.py extraction FOLDER --backbone resnet50 --weights none

`bound` knows nothing of unfreeze but how to load and cut a backbone. `extraction` times unfreeze's
engine against eager channels-last PyTorch on the same pictures, in turn. Both print one JSON line; seconds without
imports.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torchvision import transforms
from torchvision.datasets import ImageFolder

from unfreeze.cli.tuning import tune_process
from unfreeze.model.backbone import Backbone, load_backbone

SIZE, BATCH, PROBE = 128, 32, 64  # pixels; images a step; images on which engines are compared
EXTRACTED, REPEATS = 256, 3
FROZEN = {"head": 5, "last_block": 4}  # of VGG16's five blocks

Engine = Callable[[np.ndarray], np.ndarray]
"""Images float32 (n, 3, S, S) to activations float32 (n, ...)."""


def pictures(folder: Path, backbone: Backbone) -> tuple[np.ndarray, np.ndarray]:
    """Return images float32 (n, 3, S, S), as the weights want them, and classes int64 (n,), in the files' order."""
    weights = backbone.weights
    steps = [transforms.Resize(round(SIZE / weights.crop_share)), transforms.CenterCrop(SIZE)]
    steps += [transforms.ToTensor(), transforms.Normalize(weights.mean, weights.std)]
    files = ImageFolder(folder, transforms.Compose(steps))
    examples = [files[number] for number in range(len(files))]
    return np.stack([image.numpy() for image, _ in examples]), np.array([label for _, label in examples])


def openvino_engines(module: nn.Module) -> dict[str, Engine]:
    """Return OpenVINO's ways of running a module in float32: its batch, and how its threads are shared out."""
    import openvino

    model = openvino.convert_model(module, example_input=torch.zeros(1, 3, SIZE, SIZE))
    core, engines = openvino.Core(), {}
    for batch in (1, 8, 32):
        for hint in ("LATENCY", "THROUGHPUT"):
            model.reshape([batch, 3, SIZE, SIZE])
            settings = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": hint}
            queue = openvino.AsyncInferQueue(core.compile_model(model, "CPU", settings))
            engines[f"openvino, batch {batch}, {hint.lower()}"] = _queued(queue, batch)
    return engines


def _queued(queue, batch: int) -> Engine:
    def forward(images: np.ndarray) -> np.ndarray:
        parts: dict[int, np.ndarray] = {}
        queue.set_callback(lambda request, start: parts.update({start: request.get_output_tensor(0).data.copy()}))
        for start in range(0, len(images), batch):
            part = images[start : start + batch]
            if len(part) < batch:  # the shape is fixed: fill the last batch up
                part = np.concatenate([part, np.zeros((batch - len(part), *part.shape[1:]), np.float32)])
            queue.start_async({0: part}, start)
        queue.wait_all()
        return np.concatenate([parts[start] for start in sorted(parts)])[: len(images)]

    return forward


def eager_engine(module: nn.Module) -> Engine:
    """Return channels-last PyTorch, batch 32."""
    module = module.to(memory_format=torch.channels_last)

    def forward(images: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            batches = torch.from_numpy(images).split(BATCH)
            parts = [module(part.contiguous(memory_format=torch.channels_last)).numpy() for part in batches]
        return np.concatenate(parts)

    return forward


def timed(engine: Engine, images: np.ndarray) -> float:
    begun = time.perf_counter()
    engine(images)
    return time.perf_counter() - begun


def frozen_part(backbone: Backbone, stages: int) -> nn.Module:
    """Return the first stages in inference mode."""
    return nn.Sequential(*[stage.module for stage in backbone.stages[:stages]]).eval().requires_grad_(False)


class Bound(NamedTuple):
    """Seconds of one bare pass over all images and of the trained steps; validation is told apart, not part of it."""

    engine: str
    forward: float
    steps: float
    validation: float

    @property
    def seconds(self) -> float:
        """The bound."""
        return self.forward + self.steps


def bound_seconds(folder: Path, weights: Path, strategy: str, epochs: int) -> Bound:
    """Time the least work of one run of VGG16, pictures already decoded and in memory.

    Every way of running the prefix is tried on 64 images first; the fastest then makes one pass over all training
    and validation images. The steps are those of the study: epochs x ceil(n / 32), SGD with momentum.
    """
    tune_process()  # for what is read before torch is imported see TUNED in reuse.py
    backbone = load_backbone("vgg16", str(weights), SIZE, seed=0)
    images = {part: pictures(folder / part, backbone) for part in ("train", "val")}
    prefix = frozen_part(backbone, FROZEN[strategy])
    engines = {**openvino_engines(prefix), "eager channels-last": eager_engine(prefix)}
    probe = images["train"][0][:PROBE]
    for engine in engines.values():
        engine(probe[:BATCH])
    name = min(engines, key=lambda engine: min(timed(engines[engine], probe) for _ in range(2)))
    begun = time.perf_counter()
    activations = {part: torch.from_numpy(engines[name](inputs)) for part, (inputs, _) in images.items()}
    forward = time.perf_counter() - begun
    labels = {part: torch.from_numpy(classes) for part, (_, classes) in images.items()}
    network = trained_part(backbone, FROZEN[strategy], int(labels["train"].max()) + 1)
    steps, validation = bare_loop(network, activations, labels, epochs)
    return Bound(name, forward, steps, validation)


def trained_part(backbone: Backbone, frozen: int, classes: int) -> nn.Sequential:
    """Return the stages that train and the article's head, channels-last."""
    stages = [stage.module for stage in backbone.stages[frozen:]]
    width = int(np.prod(backbone.stages[-1].output_shape))
    head = [nn.Flatten(), nn.Linear(width, 2048), nn.ReLU(inplace=True), nn.Dropout(0.5)]
    head += [nn.Linear(2048, 1024), nn.ReLU(inplace=True), nn.Linear(1024, classes)]
    return nn.Sequential(*stages, *head).requires_grad_(True).to(memory_format=torch.channels_last)


def bare_loop(
    network: nn.Module, activations: dict[str, Tensor], labels: dict[str, Tensor], epochs: int
) -> tuple[float, float]:
    """Return the seconds of all training steps, and of validating after each epoch."""
    # Pixels last in memory, so that a batch of rows needs no other copy; a head alone flattens rows as they are.
    last = any(isinstance(module, nn.Conv2d) for module in network.modules())
    inputs = {part: rows.permute(0, 2, 3, 1).contiguous() if last else rows for part, rows in activations.items()}
    validated = inputs["val"].permute(0, 3, 1, 2) if last else inputs["val"]
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-4, momentum=0.9, fused=True)
    steps = validation = 0.0
    for _ in range(epochs):
        begun = time.perf_counter()
        network.train()
        for chosen in torch.randperm(len(inputs["train"])).split(BATCH):
            optimizer.zero_grad(set_to_none=True)
            rows = inputs["train"][chosen]
            logits = network(rows.permute(0, 3, 1, 2) if last else rows)
            cross_entropy(logits, labels["train"][chosen]).backward()
            optimizer.step()
        trained = time.perf_counter()
        network.eval()
        with torch.inference_mode():
            for rows in validated.split(2 * BATCH):
                network(rows)
        steps, validation = steps + trained - begun, validation + time.perf_counter() - trained
    return steps, validation


def unfreeze_engine(backbone: Backbone, images: np.ndarray) -> tuple[str, Engine]:
    """Return what a study would run the whole frozen backbone on, after seeing a few images, and its name.

    The one place here that knows how unfreeze makes it.
    """
    from unfreeze.activations.calibrate import IMAGES, FrozenWork, calibrate, pytorch_reference
    from unfreeze.activations.engines import offers

    cpu, cut = torch.device("cpu"), len(backbone.stages)
    seen = torch.from_numpy(images[:IMAGES])
    reference = pytorch_reference(backbone, cut, seen, cpu)
    offered = offers(cpu, "float32", torch.get_num_threads())
    prefix = calibrate(FrozenWork(backbone, [cut], 0, "float32", "float32", cpu), seen, reference, offered)
    calibration = prefix.calibration
    words = f"{calibration.engine}; refused: {dict(calibration.refused or {})}"
    return words, lambda rows: prefix.run(torch.from_numpy(rows), 0, cut).numpy()


def extraction(folder: Path, name: str, weights: str) -> dict[str, Any]:
    """Time unfreeze's engine and eager channels-last PyTorch on the same 256 pictures, three times in turn."""
    backbone = load_backbone(name, weights, SIZE, seed=0)
    images = pictures(folder / "train", backbone)[0][:EXTRACTED]
    built = time.perf_counter()
    chosen, engine = unfreeze_engine(backbone, images)
    built = time.perf_counter() - built
    engines = {"unfreeze": engine}
    engines["eager"] = eager_engine(frozen_part(backbone, len(backbone.stages)))
    rows = {side: engine(images[:BATCH]) for side, engine in engines.items()}  # warms up, too
    difference = float(np.linalg.norm(rows["unfreeze"] - rows["eager"]) / np.linalg.norm(rows["eager"]))
    seconds: dict[str, list[float]] = {side: [] for side in engines}
    for _ in range(REPEATS):
        for side, engine in engines.items():
            seconds[side].append(timed(engine, images))
    return {**seconds, "engine": chosen, "calibration": built, "relative_difference": difference}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["bound", "extraction"])
    parser.add_argument("folder", type=Path, help="has train/CLASS and val/CLASS")
    parser.add_argument("--weights", default="none")
    parser.add_argument("--strategy", choices=list(FROZEN), default="head")
    parser.add_argument("--backbone", default="resnet50")
    parser.add_argument("--epochs", type=int, default=10)
    asked = parser.parse_args()
    if asked.what == "bound":
        bound = bound_seconds(asked.folder, Path(asked.weights), asked.strategy, asked.epochs)
        print(json.dumps({**bound._asdict(), "seconds": bound.seconds}))
    else:
        times = extraction(asked.folder, asked.backbone, asked.weights)
        ratio = statistics.median(times["eager"]) / statistics.median(times["unfreeze"])
        print(json.dumps({**times, "ratio": ratio}))


if __name__ == "__main__":
    main()
