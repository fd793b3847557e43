"""Frozen reuse against its peers: runs the whole comparison, records every timing, prints the table (bench/README.md).

    python bench/reuse.py --keras-python .venv-peers/bin/python
    python bench/reuse.py --keras-python .venv-peers/bin/python --peer-epochs 2 --only head_keras,head_plain

TrashNet, 100 training and 25 validation images a class, VGG16 with ImageNet weights, 128 pixels, batch 32; whole
processes from start to trained model, imports and calibration included, an empty cache for each run of unfreeze.
A round runs every side once, so that ratios share the machine's mood; round r uses the images and streams of seed r.
The record, bench/results/reuse.json, is written after each measurement. Linux only (memory is read from /proc).
"""

import argparse
import datetime
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

from reusing import record
from reusing.process import Failed, run
from reusing.reading import disk, facts, trained, val_accuracy
from reusing.rows import ROWS
from reusing.setting import (
    OTHER_HEADS,
    RATES,
    STRATEGIES,
    pool_folder,
    small_pictures,
    small_weights,
    study,
    subset_folder,
    write_study,
)

BENCH = Path(__file__).parent
RESULTS, README = BENCH / "results" / "reuse.json", BENCH / "README.md"
UNFREEZE = Path(sys.executable).parent / "unfreeze"
SEEDS, EPOCHS, SMALL_SIZE = (0, 1, 2), 10, 64
PACKAGES = ("unfreeze", "torch", "torchvision", "timm", "openvino", "numpy", "pillow")
TUNED = {"OMP_WAIT_POLICY": "PASSIVE", "THP_MEM_ALLOC_ENABLE": "1"}
"""What unfreeze gives its own process; the bound is measured so, too, and the peers as people run them."""


@dataclass(frozen=True)
class Place:
    """One round: its number and seed, a folder of its own, and the images (this seed's, and all)."""

    number: int
    folder: Path
    subset: Path
    pool: Path
    weights: Path


Measure = Callable[[Place], dict[str, Any]]


def peer(command: Sequence[str | Path], strategy: str, epochs: int, place: Place) -> dict[str, Any]:
    """Run a peer; its own account: seconds from its start to its saved model, and those of the whole process."""
    out = place.folder / ("model.keras" if "keras" in str(command[1]) else "model.pt")
    options = ["--weights", place.weights, "--strategy", strategy, "--epochs", epochs, "--seed", place.number]
    ran = run([*command, place.subset, *options, "--started", "{started}", "--out", out], {}, place.folder / "peer")
    told = ran.last_json()
    return {**told, "process_seconds": ran.seconds}


def unfreeze(name: str, asked: Callable[[Place], dict[str, Any]], place: Place, sample: bool = False) -> dict[str, Any]:
    """Run a study through the command line, with an empty cache, which stays for what comes later in the round."""
    file = write_study(asked(place), place.folder / f"{name}.yaml")
    out, cache = place.folder / f"{name}.study", place.folder / f"{name}.cache"
    command = [UNFREEZE, "run", file, "--out", out]
    ran = run(command, {"UNFREEZE_CACHE": str(cache)}, place.folder / name, sample)
    memory = {"anonymous": ran.anonymous} if ran.anonymous else {}
    times = {"seconds": trained(out) - ran.started, "process_seconds": ran.seconds}
    return {"val_accuracy": val_accuracy(out), "disk": disk(cache), **memory, **times, **facts(out)}


def again(name: str, asked: Callable[[Place], dict[str, Any]], earlier: str, place: Place) -> dict[str, Any]:
    """Run a study after all imports, on the whole cache that an earlier run of the round left."""
    file, out = write_study(asked(place), place.folder / f"{name}.yaml"), place.folder / f"{name}.study"
    env = {"UNFREEZE_CACHE": str(place.folder / f"{earlier}.cache")}
    ran = run([sys.executable, BENCH / "reusing" / "inside.py", file, "--out", out], env, place.folder / name)
    return {**ran.last_json(), "process_seconds": ran.seconds, **facts(out)}


def bare(words: Sequence[str | Path], place: Place) -> dict[str, Any]:
    """Run reusing/bare.py on this seed's images, or on a part of them."""
    what, *options = words
    command = [sys.executable, BENCH / "reusing" / "bare.py", what, place.subset, *options]
    return run(command, TUNED if what == "bound" else {}, place.folder / "bare").last_json()


def memory(images: int, place: Place) -> dict[str, Any]:
    """Run a small backbone's head on many small pictures and sample anonymous memory."""
    pictures = small_pictures(images, place.folder / f"pictures_{images}")
    weights = small_weights(place.folder / "small.safetensors")
    asked = study(pictures, "test_resnet", weights, {"linear": {"train": "head"}}, (0,), 2, size=SMALL_SIZE)
    found = unfreeze(f"memory_{images}", lambda _: asked, place, sample=True)
    shutil.rmtree(pictures)
    return found


def one(strategy: str, epochs: int, place: Place) -> dict[str, Any]:
    """Return the study of one strategy on this seed's images."""
    chosen = {strategy: STRATEGIES[strategy]}
    return study(place.subset, "vgg16", place.weights, chosen, (place.number,), epochs)


def many(strategies: Mapping[str, Mapping[str, Any]], place: Place) -> dict[str, Any]:
    """Return the study of strategies and three seeds, each with its own subset of all images."""
    return study(place.pool, "vgg16", place.weights, strategies, SEEDS, EPOCHS, subsets=True)


def other_heads(place: Place) -> dict[str, Any]:
    """Return the study of other heads on this seed's images."""
    return study(place.subset, "vgg16", place.weights, OTHER_HEADS, (place.number,), EPOCHS)


def measurements(keras: Path | None, peer_epochs: int, weights: Path) -> dict[str, Measure]:
    """Return what a round measures, in its order: each of unfreeze's runs beside the peers it is compared with."""
    plain, with_keras = [sys.executable, BENCH / "peers" / "plain_peer.py"], [keras, BENCH / "peers" / "keras_peer.py"]
    found: dict[str, Measure] = {}
    for strategy in STRATEGIES:
        ten = partial(one, strategy, EPOCHS)
        if keras is not None:
            found[f"keras_{strategy}"] = partial(peer, with_keras, strategy, peer_epochs)
        found[f"unfreeze_{strategy}_10"] = partial(unfreeze, f"unfreeze_{strategy}_10", ten)
        found[f"plain_{strategy}"] = partial(peer, plain, strategy, peer_epochs)
        fast = partial(peer, [*plain, "--channels-last"], strategy, peer_epochs)
        found[f"channels_last_{strategy}"] = fast
        found[f"bound_{strategy}"] = partial(bare, ["bound", "--weights", weights, "--strategy", strategy])
    found["unfreeze_head_30"] = partial(unfreeze, "unfreeze_head_30", partial(one, "head", 3 * EPOCHS))
    found["second_study"] = partial(again, "second_study", other_heads, "unfreeze_head_10")
    found["unfreeze_seeds"] = partial(unfreeze, "unfreeze_seeds", partial(many, STRATEGIES))
    rates = {"head": {**STRATEGIES["head"], "tune": {"optimizer.lr": RATES}}}
    found["unfreeze_rates"] = partial(unfreeze, "unfreeze_rates", partial(many, rates))
    # Lite0's weights come with the installation.
    lite = ["extraction", "--backbone", "tf_efficientnet_lite0", "--weights", "pretrained"]
    found["extraction_tf_efficientnet_lite0"] = partial(bare, lite)
    # Drawn at random: the published ones are a download, and time does not depend on them.
    found["extraction_resnet50"] = partial(bare, ["extraction", "--backbone", "resnet50", "--weights", "none"])
    found["memory_1000"], found["memory_20000"] = partial(memory, 1000), partial(memory, 20000)
    return found


def needed(only: Sequence[str], found: Mapping[str, Measure]) -> list[str]:
    """Return the measurements that rows need, in a round's order; every one without `only`."""
    known = {row.name: row.parts for row in ROWS}
    unknown = [name for name in only if name not in known]
    if unknown:
        raise SystemExit(f"no row named {', '.join(unknown)}; rows: {', '.join(known)}")
    wanted = {part for name in only for part in known[name]}
    return [name for name in found if name in wanted or not only]


def about(asked: argparse.Namespace) -> dict[str, Any]:
    """Return what a reader has to know of a run: when, how, on what."""
    names = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    revision = subprocess.run(["git", "rev-parse", "HEAD"], cwd=BENCH, capture_output=True, text=True)
    options = {"repeats": asked.repeats, "peer_epochs": asked.peer_epochs, "only": asked.only}
    return {
        "date": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
        "command": "python bench/reuse.py" + "".join(f" --{k.replace('_', '-')} {v}" for k, v in options.items() if v),
        "processor": names[0].partition(": ")[2] if names else platform.processor(),
        "cores": os.cpu_count(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "versions": {name: metadata.version(name) for name in PACKAGES},
        "commit": revision.stdout.strip(),
        "measurements": [],
    }


def run_round(place: Place, chosen: Mapping[str, Measure], took: Callable[[dict[str, Any]], None]) -> None:
    """Make each measurement of a round; one that fails is told and does not stop the others."""
    for name, measure in chosen.items():
        told = {"name": name, "round": place.number, "load": round(os.getloadavg()[0], 2)}
        try:
            took({**told, **measure(place)})
        except (Failed, KeyError, IndexError, ValueError) as error:
            took({**told, "error": f"{type(error).__name__}: {error}"})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data/trashnet"), help="TrashNet's class folders")
    parser.add_argument(
        "--weights",
        type=Path,
        default=Path("../shared/weights/vgg16_imagenet_features.safetensors"),
        help="VGG16's convolutions, trained on ImageNet",
    )
    parser.add_argument("--keras-python", type=Path, help="a Python that has Keras; without it those rows stay")
    parser.add_argument("--peer-epochs", type=int, default=EPOCHS, help="epochs that peers run; fewer are scaled to 10")
    parser.add_argument("--repeats", type=int, default=3, help="rounds")
    parser.add_argument("--only", default="", help="rows to measure, by name and comma; the others are kept")
    parser.add_argument("--table", action="store_true", help="measure nothing: write the tables of what is recorded")
    asked = parser.parse_args()

    runs = record.read(RESULTS)
    if not asked.table:
        weights, keras = asked.weights.resolve(), asked.keras_python and asked.keras_python.absolute()
        offered = measurements(keras, asked.peer_epochs, weights)
        names = needed([name for name in asked.only.split(",") if name], offered)
        this = about(asked)
        runs[this["date"]] = this

        def took(measured: dict[str, Any]) -> None:
            this["measurements"].append(measured)
            record.write(RESULTS, runs)
            said = f"{measured['seconds']:.1f} s" if "seconds" in measured else measured.get("error", "done")
            print(f"round {measured['round']}: {measured['name']}: {said}", flush=True)

        with tempfile.TemporaryDirectory(prefix="unfreeze-bench-") as work:
            pool = pool_folder(asked.data, Path(work) / "pool")
            for number in range(asked.repeats):
                folder = Path(work) / f"round{number}"
                subset = subset_folder(asked.data, number, folder / "subset")
                place = Place(number, folder, subset, pool, weights)
                run_round(place, {name: offered[name] for name in names}, took)
                shutil.rmtree(folder)
        runs = record.write(RESULTS, record.used(runs, this["date"]))
    written = record.tables(runs)
    record.write_tables(README, written)
    print(written)


if __name__ == "__main__":
    main()
