"""What a study remembers of devices that were too small: how many images went through them at once.

``memory.json`` holds it, a row for each strategy, batch size, image size and device. Without the file it is found out
anew.
"""

from collections.abc import Mapping
from typing import Any

from unfreeze.config.resolve import Strategy
from unfreeze.errors import UserError
from unfreeze.reuse.prefix import Prefix
from unfreeze.store import Altered, StudyDir, read_json, write_json
from unfreeze.study.events import Emit, Warned
from unfreeze.study.needs import PrefixKey
from unfreeze.train.batches import EVALUATION_BATCH
from unfreeze.train.room import AtOnce, Room

FILE = "memory.json"

Row = Mapping[str, Any]


class Memory:
    """Rows at once, as the study directory remembers them.

    Args:
        store: the study directory.
        device: its name.
        precision: of forward passes.
        prefixes: the frozen networks; they begin with what is remembered of them.
        emit: is told what is new, when ``tell`` is called.
    """

    def __init__(
        self, store: StudyDir, device: str, precision: str, prefixes: Mapping[PrefixKey, Prefix], emit: Emit
    ) -> None:
        self.path, self.emit = store.path / FILE, emit
        self.place = {"device": device, "precision": precision}
        self.prefixes = prefixes
        self._untold: list[str] = []
        self._rows = self._read()
        for key, prefix in prefixes.items():
            prefix.batch = min(prefix.batch, self._known(self._about_prefix(key)) or prefix.batch)
        self._batches = {key: prefix.batch for key, prefix in prefixes.items()}

    def at_once(self, name: str, strategy: Strategy) -> AtOnce:
        """Return what a candidate of a strategy begins with."""
        training, evaluation = (self._known(self._about(work, name, strategy)) for work in ("training", "evaluation"))
        return AtOnce(training, evaluation)

    def lower(self, name: str, strategy: Strategy, room: Room) -> None:
        """Remember what a candidate of a strategy found out, durably."""
        before = self.at_once(name, strategy)
        for work, rows, known in (
            ("training", room.training, before.training),
            ("evaluation", room.evaluation, before.evaluation),
        ):
            if rows and rows < (known or rows + 1):
                self._remember(self._about(work, name, strategy), rows)
                at_once = AtOnce(rows, None) if work == "training" else AtOnce(None, rows)
                self._untold += self.words(name, strategy, at_once, room.batch_norm)

    def tell(self) -> bool:
        """Tell what is new since the last time, where training may be interrupted; return whether anything was."""
        for key, prefix in self.prefixes.items():
            if prefix.batch < self._batches[key]:
                self._batches[key] = prefix.batch
                self._remember(self._about_prefix(key), prefix.batch)
                self._untold += self.prefix_words(key)
        told, self._untold = self._untold, []
        for text in told:
            self.emit(Warned(text))
        return bool(told)

    def words(self, name: str, strategy: Strategy, at_once: AtOnce, batch_norm: bool) -> list[str]:
        """Say what a strategy's fewer rows at once mean for its numbers."""
        batch, device, said = strategy.batch_size, self.place["device"], []
        if at_once.training and at_once.training < batch:
            means = "so its batches stay what they are and its numbers differ by rounding"
            if batch_norm:
                means = (
                    f"but BatchNorm takes its statistics from those {at_once.training}, so its results are not those "
                    f"of whole batches; batch_size: {at_once.training} fits, and so may a smaller image_size"
                )
            said.append(
                f"{name}: a batch of {batch} images does not fit into the memory of {device}; it trains on "
                f"{at_once.training} at a time and adds up their gradients, {means}"
            )
        if at_once.evaluation:
            said.append(
                f"{name}: {EVALUATION_BATCH} images at once do not fit into the memory of {device}; it predicts "
                f"{at_once.evaluation} at a time, so its numbers may differ by rounding"
            )
        return said

    def prefix_words(self, key: PrefixKey) -> list[str]:
        """Say the same of frozen stages."""
        prefix = self.prefixes.get(key)
        if prefix is None or prefix.batch >= int(prefix.calibration.engine["batch"]):
            return []
        return [
            f"{key.label}: {prefix.calibration.engine['batch']} images at once do not fit into the memory of "
            f"{self.place['device']}; its frozen stages run on {prefix.batch} at a time, so their numbers may differ "
            "by rounding from those computed before"
        ]

    def _about(self, work: str, name: str, strategy: Strategy) -> dict[str, Any]:
        return {
            "work": work,
            "strategy": name,
            "backbone": strategy.backbone.name,
            "batch_size": strategy.batch_size,
            "image_size": strategy.image_size,
            **self.place,
        }

    def _about_prefix(self, key: PrefixKey) -> dict[str, Any]:
        return {"work": "frozen stages", "backbone": key.label, **self.place}

    def _known(self, about: Row) -> int | None:
        return min((row["at_once"] for row in self._rows if _is_about(row, about)), default=None)

    def _remember(self, about: Row, rows: int) -> None:
        others = [*self._rows, *self._read()]  # another process may have added to it
        kept = {str({**row, "at_once": 0}): row for row in sorted(others, key=lambda row: -row["at_once"])}
        self._rows = [*(row for row in kept.values() if not _is_about(row, about)), {**about, "at_once": rows}]
        try:
            write_json(self.path, {"rows": self._rows})
        except UserError as error:
            self._untold.append(f"how many images fit into memory at once is not remembered: {error.given}")

    def _read(self) -> list[Row]:
        try:
            return list(read_json(self.path)["rows"])
        except FileNotFoundError:
            return []
        except Altered:
            self._untold.append(
                f"{self.path} was altered or cut short; how many images fit into memory at once is found out anew"
            )
            return []


def _is_about(row: Row, about: Row) -> bool:
    return all(row.get(key) == value for key, value in about.items())
