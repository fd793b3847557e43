"""Data that grows: changes are reported, and the split stays as drawn."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.pictures import catalog
from unfreeze.config.schema import SplitConfig
from unfreeze.data.catalog import Catalog
from unfreeze.data.dataset_diff import TIED_TO_TEST, changes, keep_ids, keep_what_was_drawn
from unfreeze.data.split import draw_split
from unfreeze.data.unusable import CONFLICT


def rows(numbers: range, **more: str) -> list[dict[str, str]]:
    return [
        {
            "id": f"{number:016d}",
            "sha256": f"{number:016d}full",
            "label": "ab"[number % 2],
            "path": f"{'ab'[number % 2]}/{number}.png",
            **more,
        }
        for number in numbers
    ]


def drawn(catalogued: Catalog, earlier: dict[str, str] | None = None) -> dict[str, str]:
    return dict(draw_split(catalogued, SplitConfig(), earlier=earlier))


def test_new_removed_and_relabelled_images_are_listed():
    before, now = catalog(rows(range(300))), rows(range(5, 500))
    for row in now[:3]:
        row["label"] = "b" if row["label"] == "a" else "a"
    now[10]["path"] = "a/renamed.png"
    found = changes(before.images, catalog(now).images)
    assert found.words == "200 new, 5 removed, 3 relabelled"
    assert set(found.new) == {row["path"] for row in rows(range(300, 500))}
    assert set(found.removed) == {row["path"] for row in rows(range(5))}
    assert set(found.relabelled) == {row["path"] for row in rows(range(5, 8))}
    assert changes(before.images, before.images).words == ""


def classes(before: str, now: str) -> tuple[str, int]:
    """What is told of images whose labels are these letters, and how many are called relabelled."""
    tables = [
        catalog([{"id": f"{number}", "sha256": f"{number}", "label": label} for number, label in enumerate(labels)])
        for labels in (before, now)
    ]
    found = changes(tables[0].images, tables[1].images)
    return found.words, len(found.relabelled)


@pytest.mark.parametrize(
    ("before", "now", "told"),
    [
        ("aaab", "cccb", "class a is now called c: 3 images"),
        ("ab", "cb", "class a is now called c: 1 image"),
        ("aaabb", "cccbbb", "class a is now called c: 3 images; 1 new"),
        ("aaabb", "bbbaa", "class a is now called b: 3 images; class b is now called a: 2 images"),
        ("aaabbcc", "bbbccaa", "class a is now called b: 3 images; class b is now called c: 2 images; "
         "class c is now called a: 2 images"),
        ("aaabbc", "dddddc", "classes a and b are now one class, d: 5 images"),
        ("aaabbc", "bbbbbc", "class a is now part of b: 3 images"),
        ("aaabbccd", "ccccccce"[:7] + "d", "classes a and b are now part of c: 5 images"),
        ("a" * 20 + "b", "c" * 19 + "bb", "class a is now called c: 19 images; 1 relabelled"),
        ("a" * 10 + "b", "c" * 5 + "d" * 5 + "b", "10 relabelled"),
        ("a" * 10 + "b", "b" * 3 + "a" * 7 + "b", "3 relabelled"),
    ],
)  # fmt: skip
def test_classes_that_were_renamed_are_reported_and_their_images_not_called_relabelled(before, now, told):
    words, relabelled = classes(before, now)
    assert words == told
    assert (f"{relabelled} relabelled" in told) == (relabelled > 0)


@settings(deadline=None, max_examples=15)
@given(st.integers(0, 10**6), st.integers(0, 200), st.integers(0, 30))
def test_the_test_set_stays_except_for_removed_images(start, added, gone):
    earlier = drawn(catalog(rows(range(start, start + 200))))
    now = drawn(catalog(rows(range(start + gone, start + 200 + added))), earlier)
    stays = {name: pool for name, pool in earlier.items() if name in now}
    assert {name: now[name] for name in stays} == stays
    assert all(pool != "test" for name, pool in now.items() if name not in earlier)


@pytest.mark.parametrize("lost", ["validation", "train"])
def test_a_class_that_lost_its_last_image_for_validation_or_training_gets_one_of_the_others(lost: str):
    other = {"validation": "train", "train": "validation"}[lost]
    data = rows(range(200))
    earlier = drawn(catalog(data))
    left = [row for row in data if row["label"] == "b" or earlier[row["id"]] != lost]
    now = drawn(catalog(left), earlier)
    moved = [row for row in left if now[row["id"]] != earlier[row["id"]]]
    assert [(row["label"], earlier[row["id"]], now[row["id"]]) for row in moved] == [("a", other, lost)]
    assert now == drawn(catalog(left[::-1]), earlier)


def files(*found: tuple[str, str]) -> Catalog:
    """Files of some content and path, numbered as a catalog numbers them."""
    count, rows = Counter[str](), []
    for path, content in sorted(found):
        count[content] += 1
        name = content * 16 if count[content] == 1 else f"{content * 16}-{count[content]}"
        rows.append({"id": name, "sha256": content * 64, "path": path, "label": path.split("/")[0]})
    return catalog(rows)


def ids(catalogued: Catalog) -> dict[str, str]:
    return dict(zip(catalogued.images["path"], catalogued.images["id"], strict=True))


A, A2, A3 = "a" * 16, "a" * 16 + "-2", "a" * 16 + "-3"


@pytest.mark.parametrize(
    ("before", "now", "kept"),
    [
        # A new copy whose path comes first takes over neither the id nor, with it, the place in the split.
        ([("dog/1", "a")], [("cat/1", "a"), ("dog/1", "a")], {"cat/1": A2, "dog/1": A}),
        ([("dog/2", "a"), ("dog/3", "a")], [("dog/1", "a"), ("dog/3", "a")], {"dog/1": A, "dog/3": A2}),
        ([("cat/1", "a"), ("dog/1", "a")], [("dog/1", "a")], {"dog/1": A2}),
        # Renamed, it is known by its label; renamed and relabelled, by being the only one left.
        ([("cat/2", "a"), ("dog/2", "a")], [("cat/9", "a"), ("dog/0", "a")], {"cat/9": A, "dog/0": A2}),
        ([("dog/2", "a")], [("cat/3", "a")], {"cat/3": A}),
        ([("dog/1", "a")], [("ape/1", "a"), ("cat/1", "a"), ("dog/1", "a")], {"ape/1": A2, "cat/1": A3, "dog/1": A}),
        ([("dog/1", "a")], [("dog/1", "b")], {"dog/1": "b" * 16}),
    ],
)
def test_a_file_keeps_its_id_whatever_copies_come_and_go(before, now, kept):
    first = files(*before)
    second = keep_ids(first.images, files(*now))
    assert ids(second) == kept
    assert ids(keep_ids(second.images, files(*now))) == kept


@settings(deadline=None, max_examples=20)
@given(st.data())
def test_ids_are_unique_and_of_their_content_through_any_changes(data):
    found = st.lists(
        st.tuples(st.sampled_from(["cat/1", "cat/2", "dog/1", "dog/2", "dog/3"]), st.sampled_from("ab")),
        min_size=1, unique_by=lambda file: file[0],
    )  # fmt: skip
    last = files(*data.draw(found))
    for _ in range(3):
        last, before = keep_ids(last.images, files(*data.draw(found))), last
        assert last.images["id"].is_unique
        assert (last.images["id"].str[0] == last.images["sha256"].str[0]).all()
        was, now = (images.set_index(["path", "sha256"])["id"] for images in (before.images, last.images))
        assert all(now[file] == was[file] for file in now.index.intersection(was.index))


def settled(now: list[dict[str, str]], earlier: dict[str, str], labels: dict[str, str] | None = None) -> Catalog:
    return keep_what_was_drawn(catalog(now), {None: earlier}, labels or {})


def aside(catalogued: Catalog) -> dict[str, str]:
    rows = catalogued.images[catalogued.images["status"] == "set_aside"]
    return dict(zip(rows["path"], rows["reason"], strict=True))


@pytest.mark.parametrize("column", ["cluster", "group"])
def test_a_new_copy_trains_with_its_original_and_never_with_a_test_image(column):
    now = rows(range(100))
    earlier = drawn(catalog(now))
    trained, tested = (next(row for row in now if earlier[row["id"]] == pool) for pool in ("train", "test"))
    for number, original in ((1000, trained), (1001, tested)):
        original[column] = f"c{number}"
        now.append(rows(range(number, number + 1))[0] | {"label": original["label"], column: f"c{number}"})
    found = settled(now, earlier)
    assert aside(found) == {now[-1]["path"]: TIED_TO_TEST}
    assert drawn(found, earlier) == earlier | {now[-2]["id"]: "train"}


def test_a_new_copy_with_another_label_does_not_take_the_old_image_away():
    now = rows(range(100))
    earlier = drawn(catalog(now))
    original = now[7]
    conflict = {"status": "set_aside", "reason": f"{CONFLICT}: a and b", "cluster": "c"}
    original |= conflict
    other = "a" if original["label"] == "b" else "b"
    now.append(rows(range(1000, 1001))[0] | conflict | {"label": other})
    found = settled(now, earlier)
    assert list(aside(found)) == [now[-1]["path"]]
    assert drawn(found, earlier) == earlier


def test_old_images_that_are_found_to_be_copies_by_other_rules_stay_and_relabelled_ones_do_not():
    now = rows(range(100))
    labels = {row["id"]: row["label"] for row in now}
    earlier = drawn(catalog(now))
    for row in now[:2]:
        row |= {"status": "set_aside", "reason": f"{CONFLICT}: a and b", "cluster": "c"}
    assert aside(settled(now, earlier, labels)) == {}
    assert len(aside(settled(now, earlier))) == 2
    assert len(aside(settled(now, earlier, labels | {now[0]["id"]: "b"}))) == 2


def test_given_splits_are_not_drawn_again():
    now = [row | {"given_split": "train" if number % 5 else "test"} for number, row in enumerate(rows(range(100)))]
    earlier = drawn(catalog(now))
    moved = next(row for row in now if row["given_split"] == "test")
    moved["given_split"] = "train"
    assert drawn(settled(now, earlier), earlier)[moved["id"]] in ("train", "validation")
    assert aside(settled(now, earlier)) == {}
