"""Golden runs: what twelve tiny studies end with, kept so that rebuilding the inside changes no number.

    python -m tests.support.golden make DIR [STUDY ...]    run the studies, keep their tables in a folder
    python -m tests.support.golden compare DIR OTHER       compare two folders byte for byte; exits with 1 if unequal

With ``PYTHONPATH=OTHER_CHECKOUT/src:$PWD`` the first runs another commit. Only ``from unfreeze import Study`` and files
in the study directory are used, so that this module serves whatever the modules inside are called.

==============  =======================================================================================================
study           covers
==============  =======================================================================================================
strategies      head; last stages as number and share; everything; scratch; native head; two phases; ``reinit`` (alone
                and in the second phase); hidden head with dropout; SGD, Adam, AdamW; BatchNorm training; flattened and
                largest values; label smoothing; constant rate; on plain views in lock-step
transformer     test_vit: layer decay, weight decay, warm-up, two phases that freeze more again; scratch; an epoch of
                examples; fresh views in lock-step
convnext        a strategy with another backbone, image size, resize, batch size and seeds of its own
tune            ``tune`` over learning rates (one diverges), image sizes and phases; banks of two views; cross-fitting
                (``ranking.safetensors``); balanced accuracy
fresh           fresh views in lock-step; all four augmentations; validation with augmentation and a number of examples
folds           three folds, groups by a regular expression; macro F1
balance         uneven classes; class weights and oversampling, with fresh views and with a bank; log loss
early           early stopping on each of the four monitors, patience, ``min_delta``, with and without
                ``restore_best``, over one phase and two
article         ``val: test`` and its augmented validation, two further test sets, ``squash``; AUROC
given           folders train, val and test; ``sweep`` and ``train_fraction``; ``pad``
parallel        cells in two processes, batches prepared by two more each
killed          SIGKILL after the first cells have finished, then interrupted between steps, again and again
==============  =======================================================================================================

Kept of each: results.csv, comparisons.csv, splits.csv, history.csv (of all cells) and arrays.csv (all numbers of
logits.safetensors and ranking.safetensors, float32 written so that they are read back exactly), without seconds.
"""

import csv
import io
import json
import math
import os
import platform
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # read when torch is imported; sums depend on it

import numpy as np
import timm
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.numpy import save_file

GOLDEN = Path(__file__).parent / "golden"
ROOT = Path(__file__).parents[2]
TOLERANCE = 1e-4
"""Of numbers with a fraction, absolute and relative, on a machine that computes otherwise."""
CONDITIONS = "made_with.json"
PACKAGES = ("torchvision", "timm", "numpy", "pillow", "pandas", "scipy", "scikit-learn")

HIDDEN = {"hidden": [8, 6], "dropout": [0.5, 0.25]}
SMALL = {"train_per_class": 5, "val_per_class": 2}
PHASES = {"phases": [{"train": "head", "epochs": 1}, {"train": {"last": 1}, "epochs": 2}]}

STUDIES: dict[str, dict[str, Any]] = {
    "strategies": {
        "strategies": {
            "head": {"train": "head", "optimizer": {"lr": 1e-2}},
            "last": {"train": {"last": 1}, "head": HIDDEN},
            "share": {"train": {"last": 0.4}, "optimizer": "sgd", "batch_norm": "train", "label_smoothing": 0.1},
            "all": {"train": "all", "optimizer": {"name": "adam", "lr": 1e-3}, "head": {"pool": "max"}},
            "scratch": {"weights": "none", "train": "all", "head": "native"},
            "native": {"train": "head", "head": "native", "schedule": {"name": "constant", "warmup": 0}},
            "fresh": {  # not AdamW: on fresh weights it enlarges what kernels round differently beyond the tolerance
                "train": {"last": 2},
                "reinit": True,
                "head": {"pool": "flatten", **HIDDEN},
                "optimizer": {"name": "sgd", "lr": 1e-2},
            },
            "two": {
                "phases": [
                    {"train": "head", "epochs": 1, "optimizer": {"name": "sgd", "lr": 1e-2, "momentum": 0.8}},
                    {"train": {"last": 2}, "reinit": True, "epochs": 2},
                ]
            },
            "fine_tune": {"phases": [{"train": "head", "epochs": 1}, {"train": "all", "epochs": 2}]},
        },
        "regimes": {"small": SMALL, "full": {}},
        "seeds": 2,
    },
    "transformer": {
        "backbone": "test_vit",
        "strategies": {
            "head": {"train": "head", "head": "native", "epochs": 1},
            "all": {
                "train": "all",
                "optimizer": {"layer_decay": 0.7, "weight_decay": 0.1},
                "schedule": {"warmup": 0.4},
            },
            "back": {"phases": [{"train": {"last": 2}, "epochs": 1}, {"train": {"last": 1}, "epochs": 1}]},
            "scratch": {"weights": "none", "train": "all"},
        },
        "regimes": {"examples": {**SMALL, "augment": "flip_crop", "examples_per_epoch": 9}, "plain": SMALL},
    },
    "convnext": {
        "backbone": "test_convnext",
        "strategies": {
            "head": {"train": "head"},
            "last": {"train": {"last": 0.25}, "batch_size": 3, "head": HIDDEN},
            "other": {
                "backbone": {"name": "test_efficientnet", "weights": "test_efficientnet"},
                "image_size": 40,
                "resize": "squash",
                "train": {"last": 1},
                "seeds": [1],
            },
        },
        "regimes": {"small": {**SMALL, "augment": "trivial"}},
        "seeds": 2,
    },
    "tune": {
        "metric": "balanced_accuracy",
        "strategies": {
            "rates": {
                "train": "head",
                "tune": {"optimizer.lr": [1e-3, 1e30, 1e-2]},
                "optimizer": {"name": "sgd"},
                "head": HIDDEN,
            },
            "sizes": {"train": {"last": 1}, "tune": {"image_size": [24, 32], "optimizer.lr": [1e-4, 1e-3]}},
            "phases": {**PHASES, "tune": {"phases.1.optimizer.lr": [1e-4, 1e-2], "phases.0.epochs": [1, 2]}},
        },
        "regimes": {"plain": SMALL, "bank": {"train_per_class": 6, "augment": "flip_crop", "views": 2}},
        "early_stopping": {"patience": 1, "monitor": "val_metric"},
        "seeds": 2,
    },
    "fresh": {
        "strategies": {
            "head": {"train": "head", "optimizer": {"lr": 1e-2}},
            "last": {"train": {"last": 1}, "head": HIDDEN},
            "two": PHASES,
        },
        "regimes": {
            "flip_crop": {**SMALL, "augment": "flip_crop"},
            "rand": {"train_per_class": 4, "augment": "rand"},
            "trivial": {"train_per_class": 4, "augment": "trivial", "views": 3},
            "validated": {**SMALL, "augment": "article", "validation": {"augment": "article", "examples": 10}},
        },
    },
    "folds": {
        "metric": "macro_f1",
        "split": {"folds": 3, "group": "g[0-9]+"},
        "strategies": {"head": {"train": "head", "optimizer": {"lr": 1e-2}}, "all": {"train": "all"}},
        "regimes": {"small": {"train_per_class": 4}, "full": {"augment": "flip_crop"}},
        "seeds": 2,
    },
    "balance": {
        "data": "uneven",
        "metric": "log_loss",
        "strategies": {
            "head": {"train": "head", "optimizer": {"lr": 1e-2}},
            "last": {"train": {"last": 1}, "label_smoothing": 0.1},
        },
        "regimes": {
            "plain": {},
            "weights": {"balance": "weights"},
            "oversample": {"balance": "oversample", "augment": "flip_crop"},
            "bank": {"balance": "oversample", "augment": "flip_crop", "views": 2},
        },
    },
    "early": {
        "strategies": {
            "val_loss": {"train": "head", "optimizer": {"lr": 0.3}},
            "val_accuracy": {"train": "head", "early_stopping": {"monitor": "val_accuracy", "patience": 2}},
            "val_metric": {"train": {"last": 1}, "early_stopping": {"monitor": "val_metric", "patience": 1}},
            "train_loss": {
                "train": "head",
                "early_stopping": {"monitor": "train_loss", "patience": 1, "min_delta": 0.2, "restore_best": False},
            },
            "off": {"train": "head", "early_stopping": False, "epochs": 2},
            "two": {
                "phases": [{"train": "head", "epochs": 4, "optimizer": {"lr": 0.1}}, {"train": "all", "epochs": 3}],
                "early_stopping": {"patience": 1, "min_delta": 0.05},
            },
        },
        "regimes": {"small": {"train_per_class": 5}, "fresh": {"train_per_class": 5, "augment": "flip_crop"}},
        "epochs": 6,
        "early_stopping": {"patience": 2},
    },
    "article": {
        "metric": "auroc",
        "split": {"val": "test", "test": 0.3},
        "tests": {"site_b": "site_b", "site_c": "uneven"},
        "resize": "squash",
        "strategies": {
            "head": {"train": "head", "head": {"pool": "flatten", "hidden": [8], "dropout": [0.5]}},
            "last": {"train": {"last": 1}, "optimizer": {"name": "sgd", "lr": 1e-2}},
        },
        "regimes": {
            "plain": {"train_per_class": 6},
            "pattern": {
                "train_per_class": 6,
                "val_per_class": 3,
                "augment": "article",
                "examples_per_epoch": 14,
                "validation": {"augment": "article", "examples": 8},
            },
        },
        "early_stopping": {"patience": 2, "restore_best": False},
        "seeds": 2,
    },
    "given": {
        "data": "given",
        "resize": "pad",
        "strategies": {"head": {"train": "head", "optimizer": {"lr": 1e-2}}, "all": {"train": "all"}},
        "regimes": {"swept": {"sweep": {"train_per_class": [2, 4, 6]}}, "half": {"train_fraction": 0.5}},
        "seeds": 2,
    },
    "parallel": {
        "strategies": {
            "head": {"train": "head", "tune": {"optimizer.lr": [1e-3, 1e-2]}},
            "last": {"train": {"last": 1}, "head": HIDDEN},
            "all": {"train": "all"},
        },
        "regimes": {"fresh": {**SMALL, "augment": "flip_crop"}, "bank": {**SMALL, "augment": "rand", "views": 2}},
    },
    "killed": {
        "strategies": {
            "rates": {
                "train": "head",
                "head": HIDDEN,
                "epochs": 4,
                "tune": {"optimizer.lr": [1e-3, 1e-2]},
                "early_stopping": {"patience": 2},
            },
            "two": {"phases": [{"train": "head", "epochs": 1}, {"train": {"last": 2}, "epochs": 2, "reinit": True}]},
            "all": {"train": "all", "batch_norm": "train", "early_stopping": {"patience": 1}},
        },
        "regimes": {"fresh": {**SMALL, "augment": "flip_crop"}, "bank": {**SMALL, "augment": "rand", "views": 2}},
    },
}


# The world of the studies


def draw(folder: Path, per_class: Mapping[str, int], seed: int) -> None:
    """Draw pictures of noise that differ a little in colour by class, in groups of two; the same bytes everywhere."""
    generator = np.random.Generator(np.random.PCG64(seed))
    for number, (name, count) in enumerate(per_class.items()):
        (folder / name).mkdir(parents=True)
        for index in range(count):
            size = (24 + 4 * (index % 3), 28, 3)
            pixels = generator.integers(0, 160, size)
            pixels[..., number % 3] += 80
            pixels[: 4 + index % 7] //= 2
            Image.fromarray(pixels.astype(np.uint8)).save(folder / name / f"g{number}{index // 2:02}_{index % 2}.bmp")


def draw_weights(path: Path, name: str) -> None:
    """Write random weights of a tiny timm model, drawn as whole numbers: the same on every machine."""
    tensors: dict[str, Any] = {}
    for number, (key, tensor) in enumerate(timm.create_model(name).state_dict().items()):
        drawn = np.random.Generator(np.random.PCG64(number)).integers(0, 4096, tuple(tensor.shape)) / 4096
        if tensor.dtype == torch.int64:
            tensors[key] = np.zeros(tuple(tensor.shape), np.int64)
        elif tensor.ndim > 1:
            tensors[key] = ((drawn - 0.5) * math.sqrt(24 / tensor[0].numel())).astype(np.float32)
        else:  # near 0 and 1, so that what differs between images is not lost beneath what they share
            centre = 1.0 if key.endswith(("weight", "running_var")) else 0.0
            tensors[key] = ((drawn - 0.5) * 0.4 + centre).astype(np.float32)
    save_file(tensors, path)


def draw_world(folder: Path) -> None:
    """Draw all data sets and weights that the studies name."""
    draw(folder / "photographs", {"circle": 16, "square": 16, "triangle": 16}, 0)
    draw(folder / "uneven", {"circle": 24, "square": 12, "triangle": 8}, 1)
    draw(folder / "site_b", {"circle": 4, "square": 5, "triangle": 6}, 2)
    for number, (split, count) in enumerate({"train": 10, "val": 4, "test": 6}.items()):
        draw(folder / "given" / split, {"circle": count, "square": count, "triangle": count}, 3 + number)
    for name in ("test_resnet", "test_vit", "test_convnext", "test_efficientnet"):
        draw_weights(folder / f"{name}.safetensors", name)


def study_values(name: str, world: Path) -> dict[str, Any]:
    """Return the values of a study, with the paths of a world that was drawn."""
    values: dict[str, Any] = {"name": name, "image_size": 32, "batch_size": 4, "epochs": 2, "device": "cpu"}
    values |= {"data": "photographs", "backbone": "test_resnet", "seeds": 1} | json.loads(json.dumps(STUDIES[name]))
    values["data"] = str(world / values["data"])
    values["tests"] = {test: str(world / data) for test, data in values.get("tests", {}).items()}
    if name == "transformer":
        values["image_size"] = 48
    for one in (values, *values["strategies"].values()):
        if "backbone" in one:
            backbone = one["backbone"] if isinstance(one["backbone"], str) else one["backbone"]["name"]
            one["backbone"] = {"name": backbone, "weights": str(world / f"{backbone}.safetensors")}
    return values


# Running them


class Interrupted(BaseException):
    """What ends a run, as a signal would."""


def run(name: str, world: Path, out: Path) -> None:
    """Run a study in a directory and with a cache of its own, in the way that its name asks for."""
    cache = os.environ.get("UNFREEZE_CACHE")
    os.environ["UNFREEZE_CACHE"] = str(out.with_name(f"{out.name}-cache"))
    try:
        if name == "killed":
            _kill(name, world, out)
            _interrupt(name, world, out)
        _run(name, world, out, **({"parallel": 2, "workers": 2} if name == "parallel" else {"workers": 0}))
    finally:
        if cache is None:
            del os.environ["UNFREEZE_CACHE"]
        else:
            os.environ["UNFREEZE_CACHE"] = cache


def _run(name: str, world: Path, out: Path, **how: Any) -> None:
    from unfreeze import Study

    results = Study(**study_values(name, world)).run(out, **how)
    if results.failed or results.left:
        raise RuntimeError(f"study {name}: cells failed: {results.failed}, left: {results.left}")


def _kill(name: str, world: Path, out: Path) -> None:
    """Run a study in a process that gets SIGKILL when some of its cells have finished and others have not."""
    path = os.pathsep.join([str(ROOT), *(folder or os.getcwd() for folder in sys.path)])
    command = [sys.executable, "-m", "tests.support.golden", "_die", name, str(world), str(out)]
    ended = subprocess.run(command, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True)
    if ended.returncode != -signal.SIGKILL:
        raise RuntimeError(f"study {name} ended with {ended.returncode} before it was killed: {ended.stderr}")


def _die(name: str, world: Path, out: Path) -> None:
    values = study_values(name, world)
    cells = len(values["strategies"]) * len(values["regimes"])

    def emit(event: object) -> None:
        if 0 < len(list(out.glob("cells/*/result.json"))) < cells:
            os.kill(os.getpid(), signal.SIGKILL)

    _run(name, world, out, workers=0, emit=emit)


def _interrupt(name: str, world: Path, out: Path) -> None:
    """Interrupt a study between two steps, again and again, each time after more that was told of its cells."""
    states = 0
    for after in range(9, 60, 6):
        try:
            _run(name, world, out, workers=0, emit=_interrupting(after))
        except Interrupted:
            states += any(out.glob("cells/*/state*/*"))
        else:
            break
    if states < 3:
        raise RuntimeError(f"study {name}: the state of training was left {states} times, not 3 times")


def _interrupting(after: int) -> Callable[[object], None]:
    events = iter(range(after))

    def emit(event: object) -> None:
        if hasattr(event, "cell"):  # begins, trained a step, ended an epoch, …
            next(events, None)
        elif events.__length_hint__() == 0:
            raise Interrupted

    return emit


# What is kept


def tables(out: Path) -> dict[str, str]:
    """Return what is kept of a study directory: texts of CSV files by name."""
    kept = {name: _table(_rows(out / name)) for name in ("results.csv", "comparisons.csv", "splits.csv")}
    cells = sorted(path for path in out.glob("cells/*") if path.is_dir())
    kept["history.csv"] = _table({"cell": cell.name} | row for cell in cells for row in _rows(cell / "history.csv"))
    kept["arrays.csv"] = _table(row for cell in cells for row in _arrays(cell))
    return kept


def _rows(path: Path) -> Iterator[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            yield {key: "" if key.startswith("seconds") else value for key, value in row.items()}


def _arrays(cell: Path) -> Iterator[dict[str, str]]:
    for path in (cell / "logits.safetensors", cell / "ranking.safetensors"):
        if path.exists() or path.name.startswith("logits"):
            with safe_open(path, "np") as file:
                ids = json.loads(file.metadata()["unfreeze"]).get("ids", {})
                for name in sorted(file.keys()):
                    array = file.get_tensor(name)
                    about = {"cell": cell.name, "file": path.stem, "array": name, "kind": f"{array.dtype}{array.shape}"}
                    for number, row in enumerate(np.atleast_1d(array)):
                        image = ids[name][number] if name in ids else ""
                        numbers = " ".join(str(one) for one in np.ravel(row))
                        yield about | {"row": str(number), "id": image, "numbers": numbers}


def _table(rows: Any) -> str:
    listed, text = list(rows), io.StringIO()
    writer = csv.DictWriter(text, list(dict.fromkeys(key for row in listed for key in row)), lineterminator="\n")
    writer.writeheader()
    writer.writerows(listed)
    return text.getvalue()


def conditions() -> dict[str, Any]:
    """Return what numbers depend on to the last bit beside the code: processor, versions, threads."""
    processor: dict[str, str] = {}
    if Path("/proc/cpuinfo").exists():
        for line in reversed(Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()):
            key, _, value = line.partition(":")
            processor[key.strip()] = value.strip()
    asked = ("ATEN_CPU_CAPABILITY", "DNNL_MAX_CPU_ISA", "ONEDNN_MAX_CPU_ISA", "MKL_ENABLE_INSTRUCTIONS", "MKL_CBWR")
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "torch": torch.__version__,
        **{name: metadata.version(name) for name in PACKAGES},
        "threads": torch.get_num_threads(),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "processor": processor.get("model name", platform.processor()),
        "cache": processor.get("cache size", ""),
        "flags": " ".join(sorted(processor.get("flags", "").split())),
        "environment": {name: os.environ[name] for name in asked if name in os.environ},
    }


def read_conditions(folder: Path) -> dict[str, Any]:
    """Return what the tables in a folder were made with."""
    found: dict[str, Any] = json.loads((folder / CONDITIONS).read_text(encoding="utf-8"))
    return found


def read_tables(folder: Path) -> dict[str, str]:
    """Return the tables that are kept of one study."""
    return {path.name: path.read_bytes().decode() for path in sorted(folder.glob("*.csv"))}


# Comparing


def differences(kept: Mapping[str, str], found: Mapping[str, str], tolerance: float | None = None) -> list[str]:
    """Return where the tables of a study differ, as sentences.

    Args:
        kept: as ``tables`` returns.
        found: those that should be equal.
        tolerance: how far numbers with a fraction may lie apart, absolute or relative. None: texts are equal.
    """
    said = [f"{name}: only in one of them" for name in sorted(kept.keys() ^ found.keys())]
    for name in sorted(kept.keys() & found.keys()):
        if kept[name] == found[name]:
            continue
        before, after = (list(csv.reader(io.StringIO(one[name]))) for one in (kept, found))
        if before[0] != after[0] or len(before) != len(after):
            said.append(f"{name}: {len(before)} lines, columns {before[0]}; now {len(after)} lines, {after[0]}")
            continue
        for row, other in zip(before, after, strict=True):
            said += [
                f"{name}: {', '.join(row[:2])}: {column} {value!r}, now {now!r}"
                for column, value, now in zip(before[0], row, other, strict=True)
                if value != now and (tolerance is None or not _near(value, now, tolerance))
            ]
        if tolerance is None and not said:
            said.append(f"{name}: other bytes")
    return said


def _near(text: str, other: str, tolerance: float) -> bool:
    words, others = text.split(), other.split()
    return len(words) == len(others) and all(
        one == two or (_is_fraction(one) and _is_fraction(two) and _close(float(one), float(two), tolerance))
        for one, two in zip(words, others, strict=True)
    )


def _close(number: float, other: float, tolerance: float) -> bool:
    return math.isclose(number, other, rel_tol=tolerance, abs_tol=tolerance)


def _is_fraction(word: str) -> bool:
    try:
        return math.isfinite(float(word)) and not word.lstrip("-").isdigit()
    except ValueError:
        return False


# Commands


def make(folder: Path, names: list[str]) -> None:
    """Run studies and write what is kept of them to a folder."""
    import time

    import unfreeze

    if names and (folder / CONDITIONS).exists() and read_conditions(folder) != conditions():
        raise SystemExit(f"{folder} was made under other conditions: make all studies, or use another folder")
    print(f"running {unfreeze.__file__}", flush=True)
    with tempfile.TemporaryDirectory(prefix="golden-") as place:
        draw_world(Path(place) / "world")
        for name in names or STUDIES:
            started = time.perf_counter()
            out = Path(place) / name
            run(name, Path(place) / "world", out)
            (folder / name).mkdir(parents=True, exist_ok=True)
            for file, text in tables(out).items():
                (folder / name / file).write_bytes(text.encode())
            print(f"{name}: {time.perf_counter() - started:.1f} s", flush=True)
    (folder / CONDITIONS).write_text(json.dumps(conditions(), indent=1) + "\n", encoding="utf-8")


def compare(folder: Path, other: Path) -> bool:
    """Say where two folders differ; return whether they are equal byte for byte."""
    before, after = read_conditions(folder), read_conditions(other)
    for key in before.keys() | after.keys():
        if before.get(key) != after.get(key):
            print(f"made with other {key}: {before.get(key)}, now {after.get(key)}")
    names = sorted({path.name for one in (folder, other) for path in one.iterdir() if path.is_dir()})
    equal = bool(names)
    for name in names:
        kept, found = read_tables(folder / name), read_tables(other / name)
        said = differences(kept, found)
        equal = equal and not said and bool(kept)
        for text in said[:10]:
            print(f"{name}: {text}")
        if said:
            beyond = differences(kept, found, TOLERANCE)
            print(f"{name}: {len(said)} differences, of which {len(beyond)} are beyond the tolerance of {TOLERANCE}")
        else:
            print(f"{name}: equal")
    return equal


def main(arguments: list[str]) -> int:
    """Carry out a command."""
    match arguments:
        case ["make", folder, *names] if set(names) <= STUDIES.keys():
            make(Path(folder), names)
            return 0
        case ["compare", folder, other]:
            return 0 if compare(Path(folder), Path(other)) else 1
        case ["_die", name, world, out]:
            _die(name, Path(world), Path(out))
            return 0
    print(__doc__, file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
