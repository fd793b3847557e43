"""Train several candidates on the same batches, step by step: what the batches cost is paid once."""

import time
from collections.abc import Callable, Generator, Hashable, Mapping
from typing import TypeVar

from unfreeze.study.candidate import Need, Trained
from unfreeze.study.stream import Stream
from unfreeze.train.loop import Fed

Key = TypeVar("Key", bound=Hashable)
Training = Generator[Need, Fed, Trained]


def train_together(
    members: Mapping[Key, Training],
    stream: Stream,
    on_end: Callable[[Key, Trained | Exception], None],
    between: Callable[[Mapping[Key, Need]], None] = lambda waiting: None,
) -> None:
    """Train every member to its end, each as if it were alone.

    Args:
        members: candidates that draw the same images in the same order.
        stream: their batches.
        on_end: is told as soon as a member has ended, and how; one that fails does not stop the others.
        between: is called before each step, when every member stands between two of its own, with what they need.
    """
    waiting: dict[Key, Need] = {}

    def go_on(key: Key, fed: Fed | None) -> None:
        waiting.pop(key, None)
        try:
            waiting[key] = members[key].send(fed)  # type: ignore[arg-type]  # None starts a generator
        except StopIteration as end:
            on_end(key, end.value)
        except BrokenPipeError:  # whoever was told went away: not the member's failure
            raise
        except Exception as error:  # whatever it is, the others go on
            on_end(key, error)

    for key in members:
        go_on(key, None)
    try:
        while waiting:
            between(waiting)
            step = min(need.step for need in waiting.values())
            cuts = sorted({need.cut for need in waiting.values() if need.step == step})
            stream.turn_to(step, cuts)
            for cut in cuts:
                mine = [key for key, need in waiting.items() if need == Need(step, cut)]
                started = time.perf_counter()
                try:
                    batch = stream.batch(cut)
                except Exception as error:  # a file that is gone, say: theirs all
                    for key in mine:
                        del waiting[key]
                        on_end(key, error)
                    continue
                share = (time.perf_counter() - started) / len(mine)
                for key in mine:
                    go_on(key, Fed(batch, share))
    finally:
        stream.close()
