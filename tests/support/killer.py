"""A study that is killed, and the process that runs and kills it."""

import json
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.support.ages import make_old
from tests.support.finished import CLOCK, ends
from tests.support.worlds import write_photographs, write_weights
from unfreeze.storage.atomic import remove_leftovers
from unfreeze.storage.cache import tidy
from unfreeze.storage.records import read_table

STUDY = """\
name: killed
data: photographs
backbone: {name: test_resnet, weights: weights.safetensors}
image_size: 32
batch_size: 4
epochs: 2
strategies:
  head: {train: head, tune: {optimizer.lr: [1e-3, 1e-2]}, early_stopping: {patience: 1}}
  two: {phases: [{train: head, epochs: 1}, {train: {last: 1}, epochs: 1}]}
  scratch: {weights: none, train: all, head: {hidden: [8], dropout: [0.5]}}
regimes:
  small: {train_per_class: 5, val_per_class: 2, augment: flip_crop, views: 2}
seeds: 1
"""

ONE = ["--set", "strategies={last: {train: {last: 1}, epochs: 1}}"]
"""Options by which one strategy of the study is run alone."""

PHASES = {
    "check": ("unfreeze.data.scan_cache:ScanCache.add", 20, "read 36 image files", ""),
    "extraction": ("unfreeze.storage.shards:NewShard.append", 40, "started, ", "frozen stages of"),
    "training": ("unfreeze.train.gradients:_forward", 10, "finished;", "epoch 1:"),
    "evaluation": ("unfreeze.study.finish:predict", 1, "finished;", "epoch 2:"),
    "report": ("unfreeze.report.page:render_report", 1, "report: ", "finished;"),
}
"""Parts of a run: a call of a function in its midst, what is said after it, and what before."""


class Killer:
    """Runs the study in a folder, in directories and caches named by number, as told in ``tests.support.zygote``."""

    def __init__(self, folder: Path, zygote: subprocess.Popen) -> None:
        self.folder, self.zygote = folder, zygote

    def run(self, name: str, command: str = "run", more: Sequence[str] = (), **job: Any) -> dict[str, Any]:
        targets = {"report": [name], "check": ["study.yaml", "--out", f"{name}.html"]}
        target = targets.get(command, ["study.yaml", "--out", name])
        asked = {
            "folder": str(self.folder),
            "cache": f"cache-{name}",
            "log": str(self.folder / f"{name}.log"),
            "command": [command, *target, *more],
        }
        self.zygote.stdin.write(json.dumps(asked | job) + "\n")
        self.zygote.stdin.flush()
        return json.loads(self.zygote.stdout.readline())

    def steps(self, name: str) -> int:
        """Return the numbered steps of the last command that came to its end."""
        return int((self.folder / f"{name}.steps").read_text())

    def log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text()

    def strike(self, name: str, phase: str, *numbers: signal.Signals, command: str = "run") -> dict:
        """Send a command signals in the midst of a phase."""
        at, call, after, before = PHASES[phase]
        log = self.folder / f"{name}.log"
        log.unlink(missing_ok=True)
        done = self.run(name, command=command, strike=(at, call, numbers))
        assert command != "run" or before in log.read_text(), log.read_text()
        assert done["code"] != -signal.SIGKILL or after not in log.read_text(), log.read_text()
        return done

    def results(self, name: str) -> dict[str, Any]:
        """Return all that a finished study holds but for times; what killed processes left goes once it is old."""
        out, cache = self.folder / name, self.folder / f"cache-{name}"
        files = [path for folder in (out, cache) for path in folder.rglob("*")]
        litter = [path for path in files if path.suffix in (".tmp", ".altered")]
        litter += [path for path in files if path.suffix == ".rows" and not path.with_suffix(".manifest").exists()]
        make_old(*litter)
        for folder in (out, cache):
            remove_leftovers(folder)
        tidy(cache)
        assert not [path for path in litter if path.exists()]
        assert not list(out.glob("running/*"))
        assert (out / "report.html").stat().st_size > 10_000
        tables = {each: (out / each).read_bytes() for each in ("catalog.csv", "splits.csv")}
        return {**ends(out), **tables, "results.csv": read_table(out / "results.csv").drop(columns=CLOCK).to_csv()}


def make_killer(folder: Path, zygote: subprocess.Popen) -> Killer:
    write_photographs(folder / "photographs")
    write_weights(folder / "weights.safetensors")
    (folder / "study.yaml").write_text(STUDY)
    return Killer(folder, zygote)
