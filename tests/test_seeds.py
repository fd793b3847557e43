"""Named random streams are pure functions of (seed, name, position)."""

from hypothesis import given, settings
from hypothesis import strategies as st

from unfreeze.seeds import stream_generator, stream_seed

POSITIONS = st.lists(st.integers(0, 10**6) | st.text(max_size=6), max_size=3)


def test_numbers_never_change() -> None:
    """Results of studies run earlier rest on these."""
    assert stream_seed(0, "order", 0) == 5724104768301139219
    assert stream_seed(0, "augment", "d1b2", 3) == 7472086276508140942
    assert stream_generator(0, "subset", "a").integers(1000, size=5).tolist() == [45, 28, 580, 945, 809]


@settings(deadline=None)
@given(st.integers(0, 10**9), POSITIONS)
def test_a_seed_fits_torch_and_numpy_and_is_pure(seed: int, position: list[int | str]) -> None:
    one = stream_seed(seed, "augment", *position)
    assert 0 <= one < 2**63
    assert one == stream_seed(seed, "augment", *position)
    assert (
        stream_generator(seed, "augment", *position).random() == stream_generator(seed, "augment", *position).random()
    )


def test_streams_seeds_and_positions_differ() -> None:
    names = ("subset", "init", "order", "augment", "dropout")
    seeds = {stream_seed(seed, name, place) for seed in range(5) for name in names for place in range(20)}
    assert len(seeds) == 5 * 5 * 20
    assert stream_seed(0, "order", 1, 2) != stream_seed(0, "order", 12)
    assert stream_seed(0, "order", 1, 2) != stream_seed(0, "order", 2, 1)
    assert stream_seed(1, "order", 2) != stream_seed(0, "order", 12)


def test_a_file_name_that_is_not_utf_8_has_a_stream() -> None:
    assert stream_seed(0, "subset", "caf\udce9") != stream_seed(0, "subset", "café")


def test_seeds_are_spread_evenly() -> None:
    shares = [stream_seed(0, "subset", place) / 2**63 for place in range(4000)]
    tenths = [sum(tenth <= share * 10 < tenth + 1 for share in shares) for tenth in range(10)]
    assert min(tenths) > 330 and max(tenths) < 470  # 400 +- 3.7 standard deviations of 19
