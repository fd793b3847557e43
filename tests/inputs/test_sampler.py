from itertools import islice

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unfreeze.inputs.sampler import copies_of, examples_after, passes, steps_for_examples, steps_per_pass

sizes = st.integers(1, 40)


@settings(deadline=None)
@given(n=sizes, batch_size=sizes, seed=st.integers(0, 5), start=st.integers(0, 100))
def test_starting_at_a_step_equals_skipping(n, batch_size, seed, start):
    skipped = list(islice(passes(n, batch_size, seed), start, start + 7))
    assert list(islice(passes(n, batch_size, seed, start), 7)) == skipped


@settings(deadline=None)
@given(n=sizes, batch_size=sizes, seed=st.integers(0, 5))
def test_each_pass_is_a_permutation_and_counts_the_view(n, batch_size, seed):
    steps = steps_per_pass(n, batch_size)
    batches = list(islice(passes(n, batch_size, seed), 3 * steps))
    for view in range(3):
        of_pass = batches[view * steps : (view + 1) * steps]
        draws = [draw for batch in of_pass for draw in batch]
        assert sorted(draws) == [(index, view) for index in range(n)]
        assert [len(batch) for batch in of_pass[:-1]] == [batch_size] * (steps - 1)


def test_passes_and_seeds_differ():
    first, second = islice(passes(50, 50, 0), 2)
    assert [index for index, _ in first] != [index for index, _ in second]
    assert first != next(passes(50, 50, 1))


@settings(deadline=None)
@given(n=sizes, batch_size=sizes, examples=st.integers(0, 200))
def test_steps_for_examples_is_the_smallest_number(n, batch_size, examples):
    steps = steps_for_examples(n, batch_size, examples)
    assert examples_after(n, batch_size, steps) >= examples
    assert steps == 0 or examples_after(n, batch_size, steps - 1) < examples


@settings(deadline=None)
@given(n=sizes, batch_size=sizes, steps=st.integers(0, 60))
def test_examples_after_counts_what_is_drawn(n, batch_size, steps):
    drawn = sum(len(batch) for batch in islice(passes(n, batch_size, 0), steps))
    assert examples_after(n, batch_size, steps) == drawn


def test_impossible_sizes_are_refused_at_once():
    with pytest.raises(ValueError, match="^n and batch_size must be 1 or more, not 0 and 4$"):
        passes(0, 4, 0)
    with pytest.raises(ValueError, match="^start_step must be 0 or more, not -1$"):
        passes(4, 4, 0, -1)


def test_copies_of_an_image_are_seen_in_views_of_their_own():
    keys = ["a", "b", "a", "c", "a"]
    copies = copies_of(keys)
    assert copies == [(0, 3), (0, 1), (1, 3), (0, 1), (2, 3)]
    batches = passes(5, 5, seed=0, copies=copies)
    seen = [draw for _ in range(4) for draw in next(batches)]
    of = {key: sorted(view for index, view in seen if keys[index] == key) for key in "abc"}
    assert of == {"a": list(range(12)), "b": [0, 1, 2, 3], "c": [0, 1, 2, 3]}


def test_copies_in_a_bank_take_its_views_in_turn():
    batches = passes(2, 2, seed=0, views=3, copies=[(0, 2), (1, 2)])
    seen = [sorted(next(batches)) for _ in range(3)]
    assert seen == [[(0, 0), (1, 1)], [(0, 2), (1, 0)], [(0, 1), (1, 2)]]


def test_copies_of_another_number_of_images_are_refused():
    with pytest.raises(ValueError, match=r"^copies must have 3 entries, not 1$"):
        passes(3, 2, seed=0, copies=[(0, 1)])
