"""Train several candidates on the same batches, step by step: what the batches cost is paid once."""

import time
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import TypeVar

from unfreeze.study.candidate import Look, Need, Trained, Training
from unfreeze.study.stream import Stream
from unfreeze.train.batches import Batch, Fed

Key = TypeVar("Key", bound=Hashable)


def train_together(
    members: Mapping[Key, Training],
    stream: Stream,
    validation: Callable[[int], Iterable[Batch]],
    on_end: Callable[[Key, Trained | Exception], None],
    between: Callable[[Mapping[Key, Need]], None] = lambda waiting: None,
) -> None:
    """Train every member to its end, each as if it were alone.

    Args:
        members: candidates that draw the same images in the same order, and look at the same ones in validation.
        stream: their batches.
        validation: gives the batches of validation after a number of frozen stages, to be iterated over each epoch.
        on_end: is told as soon as a member has ended, and how; one that fails does not stop the others.
        between: is called before each step, when every member stands between two of its own, with what they need.
    """
    waiting: dict[Key, Need] = {}
    looking: dict[Key, Look] = {}
    looked_at: dict[int, Iterable[Batch]] = {}  # by cut; their processes live as long as a member may need them

    def forget() -> None:
        needed = {need.cut for need in waiting.values()} | {one.cut for one in looking.values()}
        for cut in looked_at.keys() - needed:
            del looked_at[cut]

    def go_on(key: Key, fed: Fed | None) -> None:
        waiting.pop(key, None)
        looking.pop(key, None)
        try:
            need = members[key].send(fed)
        except StopIteration as end:
            forget()
            on_end(key, end.value)
        except BrokenPipeError:  # whoever was told went away: not the member's failure
            raise
        except Exception as error:  # whatever it is, the others go on
            on_end(key, error)
        else:
            if isinstance(need, Look):
                looking[key] = need
            else:
                waiting[key] = need

    def feed(mine: Sequence[Key], make: Callable[[], Batch | None]) -> None:
        """Give members what they all wait for; None where that is the end of validation."""
        started = time.perf_counter()
        try:
            batch = make()
        except Exception as error:  # a file that is gone, say: theirs all
            for key in mine:
                waiting.pop(key, None)
                looking.pop(key, None)
                on_end(key, error)
            return
        share = (time.perf_counter() - started) / len(mine)
        for key in mine:
            go_on(key, None if batch is None else Fed(batch, share))

    def one_pass(cut: int) -> Iterator[Batch]:
        forget()
        if cut not in looked_at:
            looked_at[cut] = validation(cut)
        yield from looked_at[cut]

    def look(cut: int) -> None:
        batches = one_pass(cut)
        while mine := [key for key, one in looking.items() if one.cut == cut]:
            feed(mine, lambda: next(batches, None))

    for key in members:
        go_on(key, None)
    try:
        while waiting:
            between(waiting)
            step = min(need.step for need in waiting.values())
            cuts = sorted({need.cut for need in waiting.values() if need.step == step})
            stream.turn_to(step, cuts)
            for cut in cuts:
                feed([key for key, need in waiting.items() if need == Need(step, cut)], partial(stream.batch, cut))
            for cut in sorted({one.cut for one in looking.values()}):
                look(cut)
    finally:
        stream.close()
