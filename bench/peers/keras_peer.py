"""Keras 3 on TensorFlow doing what the article's code does: VGG16 without its top, frozen layers, ``model.fit``.

    KERAS_PYTHON bench/peers/keras_peer.py FOLDER --weights FILE --strategy head --epochs 10 --out model.keras

FOLDER has train/CLASS and val/CLASS. `head` freezes every convolution; `last_block` freezes ``layers[:15]``, so that
block 5 trains too. Every epoch runs the whole network, as ``trainable=False`` does. It is given what it can be given:
pictures are decoded and normalised once and stay in memory, and the files, the crop, the normalisation, the weights
and the head are those of the other sides. Prints one JSON line. Needs keras, tensorflow (or tensorflow-cpu), pillow.
"""

import argparse
import json
import os
import time
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
import tensorflow
from PIL import Image

MEAN, STD = np.float32([0.485, 0.456, 0.406]), np.float32([0.229, 0.224, 0.225])
CROP_SHARE = 0.875  # of timm's vgg16
BLOCK_5 = 15  # its first layer, in the article's words: layers[:15] are frozen
CONVOLUTIONS = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)  # their numbers in torchvision's and timm's `features`


def picture(path: Path, size: int) -> np.ndarray:
    """Return float32 (size, size, 3): shorter side to size / crop share, then the centre, normalised."""
    with Image.open(path) as image:
        rgb = image.convert("RGB")
    shorter, (width, height) = round(size / CROP_SHARE), rgb.size
    scale = (shorter, int(shorter * height / width)) if width <= height else (int(shorter * width / height), shorter)
    rgb = rgb.resize(scale, Image.Resampling.BILINEAR)
    left, top = round((scale[0] - size) / 2), round((scale[1] - size) / 2)
    pixels = np.asarray(rgb.crop((left, top, left + size, top + size)), dtype=np.float32) / 255
    return (pixels - MEAN) / STD


def images(folder: Path, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Return pictures float32 (n, size, size, 3) and classes int64 (n,)."""
    classes = sorted(entry for entry in folder.iterdir() if entry.is_dir())
    files = [(path, number) for number, entry in enumerate(classes) for path in sorted(entry.iterdir())]
    pixels = np.stack([picture(path, size) for path, _ in files])
    return pixels, np.array([number for _, number in files], dtype=np.int64)


def tensors(path: Path) -> dict[str, np.ndarray]:
    """Read a safetensors file of float32 tensors; the format is a length, a JSON header and the bytes."""
    data = path.read_bytes()
    start = 8 + int.from_bytes(data[:8], "little")
    header = {name: entry for name, entry in json.loads(data[8:start]).items() if name != "__metadata__"}
    if {entry["dtype"] for entry in header.values()} != {"F32"}:
        raise SystemExit(f"{path}: its tensors are not all float32")
    return {
        name: np.frombuffer(
            data[start + entry["data_offsets"][0] : start + entry["data_offsets"][1]], np.float32
        ).reshape(entry["shape"])
        for name, entry in header.items()
    }


def network(classes: int, size: int, weights: Path, strategy: str) -> keras.Model:
    """Return the article's model 2 (`head`) or 3 (`last_block`), compiled."""
    vgg = keras.applications.VGG16(include_top=False, weights=None, input_shape=(size, size, 3))
    given = tensors(weights)
    convolutions = [layer for layer in vgg.layers if isinstance(layer, keras.layers.Conv2D)]
    for number, layer in zip(CONVOLUTIONS, convolutions, strict=True):
        kernel = given[f"features.{number}.weight"].transpose(2, 3, 1, 0)  # OIHW to HWIO
        layer.set_weights([kernel, given[f"features.{number}.bias"]])
    for layer in vgg.layers if strategy == "head" else vgg.layers[:BLOCK_5]:
        layer.trainable = False
    top = keras.layers.Flatten()(vgg.output)
    top = keras.layers.Dense(2048, activation="relu")(top)
    top = keras.layers.Dropout(0.5)(top)
    top = keras.layers.Dense(1024, activation="relu")(top)
    model = keras.Model(vgg.input, keras.layers.Dense(classes, activation="softmax")(top))
    optimizer = keras.optimizers.SGD(learning_rate=1e-4, momentum=0.9)
    model.compile(optimizer, loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


class Clock(keras.callbacks.Callback):
    """Seconds of each epoch, its validation included, and when the first began."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.begun, self.epochs = 0.0, 0.0, []

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        self.begun = time.time()
        self.first = self.first or self.begun

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        self.epochs.append(time.time() - self.begun)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="has train/CLASS and val/CLASS")
    parser.add_argument("--weights", type=Path, required=True, help="VGG16's convolutions, safetensors")
    parser.add_argument("--strategy", choices=["head", "last_block"], required=True)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--started", type=float, help="when this process was started, in seconds since 1970")
    parser.add_argument("--out", type=Path, required=True, help="where the trained model is saved")
    asked = parser.parse_args()
    started = time.time() if asked.started is None else asked.started

    keras.utils.set_random_seed(asked.seed)
    train, train_labels = images(asked.folder / "train", asked.size)
    validation, validation_labels = images(asked.folder / "val", asked.size)
    model = network(int(train_labels.max()) + 1, asked.size, asked.weights, asked.strategy)
    clock = Clock()
    history = model.fit(
        train,
        train_labels,
        batch_size=asked.batch,
        epochs=asked.epochs,
        validation_data=(validation, validation_labels),
        callbacks=[clock],
        verbose=0,
    ).history
    trained = time.time()
    model.save(asked.out)
    print(
        json.dumps(
            {
                "seconds": time.time() - started,
                "startup": clock.first - started,
                "epochs": clock.epochs,
                "saving": time.time() - trained,
                "val_accuracy": [float(value) for value in history["val_accuracy"]],
                "train_accuracy": [float(value) for value in history["accuracy"]],
                "versions": {"keras": keras.__version__, "tensorflow": tensorflow.__version__},
            }
        )
    )


if __name__ == "__main__":
    main()
