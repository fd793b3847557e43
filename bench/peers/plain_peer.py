"""Plain PyTorch and timm as tutorials write it: ``requires_grad = False``, the whole network in every epoch.

    python bench/peers/plain_peer.py FOLDER --weights FILE --strategy head --epochs 10 --out model.pt [--channels-last]

FOLDER has train/CLASS and val/CLASS. `head` freezes every convolution of VGG16; `last_block` trains block 5 too. It is
given what it can be given: a picture is decoded once and its tensor stays in memory, parameters that are frozen are
not given to the optimiser, and the files, the crop, the normalisation, the weights and the head with its initial
distribution are those of the other sides. Prints one JSON line. Needs torch, torchvision, timm, safetensors.
"""

import argparse
import json
import time
from pathlib import Path

import timm
import torch
import torchvision
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms
from torchvision.datasets import ImageFolder

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CROP_SHARE = 0.875  # of timm's vgg16
BLOCK_5 = 24  # number of its first convolution in `features`


class Kept(Dataset):
    """A data set whose examples are made once and kept in memory."""

    def __init__(self, examples: Dataset) -> None:
        self.examples, self.made = examples, {}

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        if index not in self.made:
            self.made[index] = self.examples[index]
        return self.made[index]


def images(folder: Path, size: int) -> Kept:
    steps = [transforms.Resize(round(size / CROP_SHARE)), transforms.CenterCrop(size)]
    steps += [transforms.ToTensor(), transforms.Normalize(MEAN, STD)]
    return Kept(ImageFolder(folder, transforms.Compose(steps)))


def dense(inputs: int, outputs: int) -> nn.Linear:
    layer = nn.Linear(inputs, outputs)
    nn.init.xavier_uniform_(layer.weight)  # as Keras's Dense, so that accuracies can be compared
    nn.init.zeros_(layer.bias)
    return layer


def network(classes: int, size: int, weights: Path, strategy: str) -> nn.Sequential:
    """Return VGG16's convolutions and the article's head; logits."""
    # timm's own 4096-wide layers are not used: the ratio keeps half a gigabyte from being made.
    features = timm.create_model("vgg16", pretrained=False, num_classes=0, mlp_ratio=1 / 4096).features
    given = load_file(weights)
    features.load_state_dict({name.removeprefix("features."): tensor for name, tensor in given.items()})
    for parameter in (features if strategy == "head" else features[:BLOCK_5]).parameters():
        parameter.requires_grad = False
    side = size // 32
    head = [nn.Flatten(), dense(512 * side * side, 2048), nn.ReLU(), nn.Dropout(0.5)]
    head += [dense(2048, 1024), nn.ReLU(), dense(1024, classes)]
    return nn.Sequential(features, *head)


def accuracy(model: nn.Module, loader: DataLoader, memory: torch.memory_format) -> float:
    model.eval()
    right = 0
    with torch.no_grad():
        for inputs, labels in loader:
            logits = model(inputs.to(memory_format=memory))
            right += int((logits.argmax(dim=1) == labels).sum())
    return right / len(loader.dataset)


def train_epoch(
    model: nn.Module, loader: DataLoader, optimizer: torch.optim.Optimizer, memory: torch.memory_format
) -> float:
    """Train one epoch; return the training accuracy on the way."""
    model.train()
    right, criterion = 0, nn.CrossEntropyLoss()
    for inputs, labels in loader:
        optimizer.zero_grad()
        logits = model(inputs.to(memory_format=memory))
        loss = criterion(logits, labels)
        loss.backward()
        optimizer.step()
        right += int((logits.argmax(dim=1) == labels).sum())
    return right / len(loader.dataset)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="has train/CLASS and val/CLASS")
    parser.add_argument("--weights", type=Path, required=True, help="VGG16's convolutions, safetensors")
    parser.add_argument("--strategy", choices=["head", "last_block"], required=True)
    parser.add_argument("--channels-last", action="store_true")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--started", type=float, help="when this process was started, in seconds since 1970")
    parser.add_argument("--out", type=Path, required=True, help="where the trained model is saved")
    asked = parser.parse_args()
    started = time.time() if asked.started is None else asked.started

    torch.manual_seed(asked.seed)
    memory = torch.channels_last if asked.channels_last else torch.contiguous_format
    training, validation = (images(asked.folder / part, asked.size) for part in ("train", "val"))
    loader = DataLoader(training, batch_size=asked.batch, shuffle=True)
    validation_loader = DataLoader(validation, batch_size=asked.batch)
    model = network(len(training.examples.classes), asked.size, asked.weights, asked.strategy).to(memory_format=memory)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(trained, lr=1e-4, momentum=0.9)

    first = time.time()
    epochs, train_accuracy, val_accuracy = [], [], []
    for _ in range(asked.epochs):
        begun = time.time()
        train_accuracy.append(train_epoch(model, loader, optimizer, memory))
        val_accuracy.append(accuracy(model, validation_loader, memory))
        epochs.append(time.time() - begun)
    saving = time.time()
    torch.save(model.state_dict(), asked.out)
    print(
        json.dumps(
            {
                "seconds": time.time() - started,
                "startup": first - started,
                "epochs": epochs,
                "saving": time.time() - saving,
                "val_accuracy": val_accuracy,
                "train_accuracy": train_accuracy,
                "versions": {
                    "torch": torch.__version__,
                    "torchvision": torchvision.__version__,
                    "timm": timm.__version__,
                },
            }
        )
    )


if __name__ == "__main__":
    main()
