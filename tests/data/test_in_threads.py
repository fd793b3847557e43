import contextlib
import threading
import time

import pytest

from unfreeze.data.scan import in_threads


@pytest.mark.parametrize("workers", [1, 3, None])
def test_results_come_in_the_order_of_the_items(workers):
    def double(number: int) -> int:
        time.sleep(0.001 * (number % 3))
        return 2 * number

    assert list(in_threads(double, range(40), workers)) == [2 * number for number in range(40)]
    assert list(in_threads(double, [], workers)) == []


def test_few_items_are_taken_ahead_of_the_results():
    taken = []
    results = in_threads(lambda number: number, (taken.append(number) or number for number in range(1_000)), 2)
    with contextlib.closing(results):
        assert next(results) == 0
        assert len(taken) == 8


def test_what_a_function_raises_reaches_the_caller_and_ends_the_threads():
    def refuse(number: int) -> int:
        raise LookupError(f"no {number}")

    before = threading.active_count()
    with pytest.raises(LookupError, match="^'no 0'$|^no 0$"):
        list(in_threads(refuse, range(100), 2))
    assert threading.active_count() == before
