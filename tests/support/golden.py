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
import torch
from safetensors import safe_open

from tests.support.golden_world import STUDIES, draw_world, study_values

GOLDEN = Path(__file__).parent / "golden"
ROOT = Path(__file__).parents[2]
TOLERANCE = 1e-4
"""Of numbers with a fraction, absolute and relative, on a machine that computes otherwise."""
CONDITIONS = "made_with.json"
PACKAGES = ("torchvision", "timm", "numpy", "pillow", "pandas", "scipy", "scikit-learn")

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
            states += any(out.glob("running/*"))
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
