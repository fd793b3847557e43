"""Another implementation of training, to compare the package with: one whole network at a time, in every epoch.

Written from docs/concepts.md and docs/study-file.md for `test_resnet`, class folders of PNG files and the resizing
`crop`. It imports nothing of the package, so that a mistake there is not made here, too. It knows no defaults: a
strategy and a regime give every setting.
"""

import copy
import hashlib
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

MODEL, SIZE = "test_resnet", 32
STAGES = (("conv1", "bn1"), ("layer1",), ("layer2",), ("layer3",), ("layer4",))
"""The modules of each stage that have tensors."""
Settings = Mapping[str, Any]


@dataclass(frozen=True)
class Photograph:
    """An image file, and the number of its class."""

    path: Path
    label: int

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.path.read_bytes()).hexdigest()


@dataclass(frozen=True)
class Outcome:
    """A row an epoch, the reported epoch, and its logits of each test image by sha256."""

    history: list[dict[str, float]]
    reported: int
    logits: dict[str, Tensor]


def train(
    strategy: Settings, regime: Settings, seed: int, images: Mapping[str, Sequence[Photograph]], weights: Path
) -> Outcome:
    """Train one network and predict the test images.

    Args:
        strategy: as a study file has it, in phases.
        regime: as a study file has it; the images are chosen already.
        seed: of all streams.
        images: of "train", "validation" and "test", in any order.
        weights: the file of the pretrained weights.
    """
    images = {split: sorted(some, key=lambda one: _place(one, seed)) for split, some in images.items()}
    counts, size = Counter(one.label for one in images["train"]), strategy["batch_size"]
    network = _network(strategy, len(counts), seed, weights)
    class_weights = torch.tensor([len(images["train"]) / (len(counts) * counts[label]) for label in sorted(counts)])
    batches = _batches(images["train"], regime, size, seed)
    fresh = set(sum(STAGES, ())) if strategy["weights"] == "none" else set[str]()
    history, stopping, best = list[dict[str, float]](), strategy["early_stopping"], dict[str, Tensor]()
    least, reported, epoch, step, examples = math.inf, 0, 0, 0, 0
    for number, phase in enumerate(strategy["phases"]):
        trained = _trained(phase["train"])
        if phase["reinit"]:
            fresh |= _reinitialise(network[0], trained, seed)
        optimizer = _optimizer(network, trained, phase["optimizer"])
        first, waited, ends = step, 0, _ends(epoch, phase["epochs"], len(images["train"]), size, regime)
        for end in ends:
            _set_modes(network, trained, phase["batch_norm"], fresh)
            epoch, seen, losses, hits, rate = epoch + 1, 0, 0.0, 0, 0.0
            while step < end:
                rate = _rate(phase, step - first, ends[-1] - first)
                for group in optimizer.param_groups:
                    group["lr"] = rate * group["share"]
                inputs, labels = next(batches)
                torch.manual_seed(stream(seed, "dropout", step))
                logits = network(inputs)
                weighed = {"weight": class_weights if regime["balance"] == "weights" else None}
                loss = cross_entropy(logits, labels, **weighed, label_smoothing=phase["label_smoothing"])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                step, seen, losses = step + 1, seen + len(labels), losses + loss.item() * len(labels)
                hits += int((logits.argmax(1) == labels).sum())
            examples += seen
            row = {"phase": number, "epoch": epoch, "step": step, "examples": examples, "lr": rate}
            row |= {"train_loss": losses / seen, "train_accuracy": hits / seen}
            history.append(row | _validate(network, images["validation"]))
            waited += 1
            if stopping and history[-1]["val_loss"] < least:
                least, reported, waited = history[-1]["val_loss"], epoch, 0
                best = copy.deepcopy(network.state_dict())
            if stopping and waited == stopping["patience"]:
                break
        if best:
            network.load_state_dict(best)
    logits = dict(zip((one.sha256 for one in images["test"]), _predict(network, images["test"]), strict=True))
    return Outcome(history, reported or epoch, logits)


def _place(image: Photograph, seed: int) -> tuple[int, int]:
    """Return what images are sorted by: class after class, in each as drawn."""
    return image.label, stream(seed, "subset", image.sha256)


def stream(seed: int, name: str, *position: int | str) -> int:
    """Return the seed of a named stream at a position."""
    text = "\x1f".join(map(str, (seed, name, *position)))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") // 2


def _network(strategy: Settings, classes: int, seed: int, weights: Path) -> nn.Sequential:
    model = _fresh_model(seed)
    if strategy["weights"] != "none":
        tensors = load_file(weights)
        model.load_state_dict({name: tensors[name] for name in model.state_dict()})
    drawn = torch.Generator().manual_seed(stream(seed, "init", "head"))
    hidden, dropout = (), ()
    if isinstance(strategy["head"], dict):
        hidden, dropout = strategy["head"]["hidden"], strategy["head"]["dropout"]
    widths, head = [model.num_features, *hidden, classes], nn.Sequential()
    for number, (before, after) in enumerate(zip(widths, widths[1:], strict=False)):
        dense = nn.Linear(before, after)
        bound = math.sqrt(6 / (before + after))  # Glorot and Bengio 2010
        nn.init.uniform_(dense.weight, -bound, bound, drawn)
        nn.init.zeros_(dense.bias)
        head.append(dense)
        if number < len(hidden):
            head.extend([nn.ReLU(), nn.Dropout(dropout[number])])
    if not hidden:
        nn.init.zeros_(head[0].weight)
    # In another order of its axes a convolution sums in another order, to other last bits.
    return nn.Sequential(model, head).to(memory_format=torch.channels_last)


def _fresh_model(seed: int) -> nn.Module:
    torch.manual_seed(stream(seed, "init", MODEL))
    return timm.create_model(MODEL, num_classes=0)


def _reinitialise(model: nn.Module, trained: Sequence[Sequence[str]], seed: int) -> set[str]:
    fresh, names = _fresh_model(seed).state_dict(), set(sum(trained, ()))
    for name, tensor in model.state_dict().items():
        if name.split(".")[0] in names:
            tensor.copy_(fresh[name])
    return names


def _trained(train: Any) -> Sequence[Sequence[str]]:
    return STAGES[-train["last"] :] if isinstance(train, dict) else {"all": STAGES, "head": ()}[train]


def _set_modes(network: nn.Sequential, trained: Sequence[Sequence[str]], batch_norm: str, fresh: set[str]) -> None:
    """Put all but frozen stages into training mode, and of pretrained stages BatchNorm only where that is asked for."""
    network.train()
    for stage in STAGES:
        for name in stage:
            network[0].get_submodule(name).train(stage in trained)
            for module in network[0].get_submodule(name).modules():
                if isinstance(module, nn.BatchNorm2d) and batch_norm == "frozen" and name not in fresh:
                    module.eval()


def _optimizer(network: nn.Sequential, trained: Sequence[Sequence[str]], settings: Settings) -> torch.optim.Optimizer:
    network.requires_grad_(False)
    layers = [[network[1]], *([network[0].get_submodule(name) for name in stage] for stage in reversed(trained))]
    groups = []
    for depth, layer in enumerate(layers):
        for parameter in (one for module in layer for one in module.parameters()):
            parameter.requires_grad_(True)
            decay = settings["weight_decay"] if parameter.ndim > 1 else 0.0
            groups.append({"params": [parameter], "weight_decay": decay, "share": settings["layer_decay"] ** depth})
    if settings["name"] == "sgd":
        return torch.optim.SGD(groups, settings["lr"], momentum=settings["momentum"], fused=True)
    kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[settings["name"]]
    return kind(groups, settings["lr"], fused=True)


def _rate(phase: Settings, step: int, steps: int) -> float:
    peak, schedule = phase["optimizer"]["lr"], phase["schedule"]
    warmup = round(schedule["warmup"] * steps)
    if step < warmup:
        return peak * (step + 1) / warmup
    if schedule["name"] == "constant":
        return peak
    return peak * (1 + math.cos(math.pi * (step - warmup) / (steps - warmup))) / 2


def _ends(epoch: int, epochs: int, images: int, batch_size: int, regime: Settings) -> list[int]:
    """Return the steps after which the epochs that follow ``epoch`` end: when so many examples are drawn."""
    wanted, ends, drawn, step = regime["examples_per_epoch"] or images, list[int](), 0, 0
    while len(ends) < epoch + epochs:
        drawn += min(batch_size, images - drawn % images)  # the last batch of a pass may be short
        step += 1
        if drawn >= wanted * (len(ends) + 1):
            ends.append(step)
    return ends[epoch:]


def _batches(images: Sequence[Photograph], regime: Settings, size: int, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    for number in count():
        view = number if regime["views"] == "fresh" else number % regime["views"]
        order = np.random.Generator(np.random.PCG64(stream(seed, "order", number))).permutation(len(images))
        for start in range(0, len(images), size):
            some = [images[index] for index in order[start : start + size]]
            yield _inputs(some, regime["augment"], seed, view), torch.tensor([one.label for one in some])


def _inputs(images: Sequence[Photograph], augment: str, seed: int, view: int) -> Tensor:
    config = timm.get_pretrained_cfg(MODEL)
    mean, std = (255 * torch.tensor(values).view(3, 1, 1) for values in (config.mean, config.std))
    side = round(SIZE / config.crop_pct)
    pixels = []
    for image in images:
        picture = Image.open(image.path).convert("RGB").resize((side, side), Image.Resampling.BILINEAR)
        flip, left, top = False, (side - SIZE) // 2, (side - SIZE) // 2
        if augment == "flip_crop":
            drawn = torch.Generator().manual_seed(stream(seed, "augment", image.sha256, view))
            flip = bool(torch.rand((), generator=drawn) < 0.5)
            left, top = (int(torch.randint(side - SIZE + 1, (), generator=drawn)) for _ in "xy")
        part = torch.from_numpy(np.array(picture.crop((left, top, left + SIZE, top + SIZE)))).permute(2, 0, 1).float()
        pixels.append(((part.flip(2) if flip else part) - mean) / std)
    return torch.stack(pixels).to(memory_format=torch.channels_last)


def _predict(network: nn.Module, images: Sequence[Photograph]) -> Tensor:
    network.eval()
    with torch.no_grad():
        return network(_inputs(images, "none", 0, 0))


def _validate(network: nn.Module, images: Sequence[Photograph]) -> dict[str, float]:
    logits, labels = _predict(network, images), torch.tensor([one.label for one in images])
    accuracy = (logits.argmax(1) == labels).double().mean().item()
    return {"val_loss": cross_entropy(logits.double(), labels).item(), "val_accuracy": accuracy, "val_metric": accuracy}
