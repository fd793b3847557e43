from pathlib import Path

import pytest
from PIL import Image, ImageFilter

from tests.support.nasty import bombs
from tests.support.photos import COPIES, photo
from unfreeze.config.schema import CheckConfig, SplitConfig
from unfreeze.data.catalog import SAFE, Catalog, build_catalog
from unfreeze.data.quality import findings, path_of, refuse_losses, warnings_of
from unfreeze.data.sources import open_source
from unfreeze.errors import UserError

KEEP = CheckConfig(label_conflicts="keep")


def write(root: Path, counts: dict[str, int], start: int = 0) -> Path:
    number = start
    for label, count in counts.items():
        (root / label).mkdir(parents=True, exist_ok=True)
        for index in range(count):
            photo(number, 64, 48).save(root / label / f"{index:02}.png")
            number += 1
    return root


def look(root: Path, check: CheckConfig = SAFE, **tests: str) -> Catalog:
    return build_catalog(open_source(str(root), tests, root), check=check)


def of_kind(catalog: Catalog, kind: str, image_size: int | None = None) -> list[tuple[str, list[str], str]]:
    found = [one for one in findings(catalog, image_size) if one.kind == kind]
    return [(one.severity, [path_of(catalog, row) for row in one.rows], one.note) for one in found]


def test_clean_data_has_no_findings(tmp_path):
    assert findings(look(write(tmp_path, {"a": 25, "b": 25}))) == []


def test_unreadable_files_are_reported_by_kind_with_reasons_and_fixes(tmp_path):
    write(tmp_path, {"a": 12, "b": 12})
    (tmp_path / "a/empty.jpg").write_bytes(b"")
    (tmp_path / "b/text.jpg").write_text("a text")
    (tmp_path / "b/text.png").write_text("another")
    (tmp_path / "b/large.png").write_bytes(bombs()["lying.png"])
    assert of_kind(look(tmp_path), "unreadable") == [
        ("warning", ["b/text.jpg", "b/text.png"], "not read as they are: 2 not an image"),
        ("warning", ["a/empty.jpg"], "cannot be decoded whole: 1 empty file"),
        (
            "warning",
            ["b/large.png"],
            "over a limit: 1 too large, more than 89.5 million pixels: --set check.max_pixels=120M",
        ),
    ]


def test_truncated_pictures_that_are_kept_are_reported(tmp_path):
    write(tmp_path, {"a": 12, "b": 12})
    photo(90, 96, 64).save(tmp_path / "a/cut.jpg", quality=90)
    (tmp_path / "a/cut.jpg").write_bytes((tmp_path / "a/cut.jpg").read_bytes()[:1500])
    found = look(tmp_path, CheckConfig(truncated="keep"))
    assert of_kind(found, "unreadable") == []
    assert ("note", ["a/cut.jpg"], "truncated: a part of the picture may be missing") in of_kind(found, "outlier")


def test_further_reasons_are_counted_together(tmp_path):
    write(tmp_path, {"a": 12, "b": 12})
    whole = (tmp_path / "a/00.png").read_bytes()
    signatures = [b"\x00\x00\x00\x18ftypheic", b"\x00\x00\x00\x18ftypavif", b"\xff\x0a\x00\x00", b"%PDF-", b"<svg>"]
    for number, content in enumerate([b"", b"", b"text", whole[:90], *signatures]):
        (tmp_path / f"a/bad{number}.jpg").write_bytes(content)
    (_, forms, note), (_, damaged, other) = of_kind(look(tmp_path), "unreadable")
    assert (len(forms), len(damaged)) == (6, 3)
    assert note.startswith("not read as they are: 1 ") and note.endswith("; 2 for other reasons")
    assert other == "cannot be decoded whole: 2 empty file, 1 truncated"


def test_copies_of_one_label_are_duplicates_and_of_two_a_conflict(tmp_path):
    write(tmp_path, {"a": 12, "b": 12})
    photo(0, 64, 48).save(tmp_path / "a/again.bmp")
    COPIES["mirrored"](photo(1, 64, 48)).save(tmp_path / "a/mirrored.png")
    COPIES["5 % darker"](photo(2, 64, 48)).save(tmp_path / "b/darker.png")
    photo(3, 64, 48).save(tmp_path / "b/same.bmp")
    found = look(tmp_path)
    assert of_kind(found, "exact_duplicate") == [
        ("warning", ["a/00.png", "a/again.bmp"], "2 images, the same pixels, all a")
    ]
    ((severity, paths, note),) = of_kind(found, "near_duplicate")
    assert (severity, paths) == ("warning", ["a/01.png", "a/mirrored.png"])
    assert note.startswith("2 images, likeness 0.99") or note.startswith("2 images, likeness 1.000")
    conflicts = of_kind(found, "label_conflict")
    assert [paths for _, paths, _ in conflicts] == [["a/03.png", "b/same.bmp"], ["a/02.png", "b/darker.png"]]
    assert conflicts[0][2] == "2 images, the same pixels, labelled a and b"
    aside = found.images[found.images["status"] == "set_aside"]
    assert set(aside["path"]) == {"a/02.png", "a/03.png", "b/darker.png", "b/same.bmp"}
    assert set(aside["reason"]) == {"copies have different labels: a and b"}
    assert of_kind(found, "unreadable") == []
    assert warnings_of(found, findings(found, folds=False)) == [
        "2 pictures have copies with different labels, 4 images, set aside, first a/03.png and b/same.bmp "
        "(--set check.label_conflicts=keep uses them)"
    ]
    kept = look(tmp_path, KEEP)
    (told,) = warnings_of(kept, findings(kept, folds=False))
    assert told == (
        "2 pictures have copies with different labels, 4 images, kept, first a/03.png and b/same.bmp "
        "(--set check.label_conflicts=set_aside leaves them out)"
    )
    assert set(kept.images["status"]) == {"used"}
    assert [paths for _, paths, _ in of_kind(kept, "label_conflict")] == [paths for _, paths, _ in conflicts]


def test_near_duplicates_can_be_ignored(tmp_path):
    write(tmp_path, {"a": 12, "b": 12})
    COPIES["mirrored"](photo(1, 64, 48)).save(tmp_path / "a/mirrored.png")
    found = look(tmp_path, CheckConfig(near_duplicates="ignore"))
    assert set(found.images["cluster"]) == {""}


@pytest.mark.parametrize("second", ["val", "test"])
def test_copies_in_two_given_splits_are_a_leak(tmp_path, second):
    for split, start in (("train", 0), ("val", 100), ("test", 200)):
        write(tmp_path / split, {"a": 12, "b": 12}, start)
    photo(0, 64, 48).save(tmp_path / second / "a/leak.bmp")
    found = look(tmp_path)
    ((severity, paths, note),) = of_kind(found, "split_leak")
    assert sorted(paths) == sorted(["train/a/00.png", f"{second}/a/leak.bmp"])
    told = warnings_of(found, findings(found, folds=False))
    if second == "val":
        assert (severity, note) == ("error", "2 images, the same pixels, in train and validation")
        assert told[0].startswith(
            "1 picture has copies in two splits that the data gives, so test scores are optimistic; fir"
        )
        return
    assert severity == "warning"
    assert note == "2 images, the same pixels, in test and train: those that are not test images are left out"
    assert told == []  # split_notes says it
    earlier = dict(zip(found.images["id"], found.images["given_split"], strict=True))  # a run that trained on it
    told = warnings_of(found, findings(found, folds=False, earlier=earlier))
    assert told[0].startswith(
        "1 picture has copies in two splits that the data gives, so test scores are optimistic; first "
    )


def test_a_further_test_set_with_pictures_of_the_main_data_is_a_leak(tmp_path):
    write(tmp_path / "main", {"a": 12, "b": 12})
    write(tmp_path / "site", {"a": 2, "b": 2}, 100)
    photo(0, 64, 48).save(tmp_path / "site/a/leak.bmp")
    found = look(tmp_path / "main", site=str(tmp_path / "site"))
    ((_, paths, note),) = of_kind(found, "split_leak")
    assert paths == ["a/00.png", "site:a/leak.bmp"]
    assert note == "2 images, the same pixels, in the main data and the test set site"


def test_copies_in_two_test_sets_are_not_a_leak(tmp_path):
    for split, start in (("train", 0), ("test", 200)):
        write(tmp_path / "main" / split, {"a": 12, "b": 12}, start)
    for site in ("north", "south"):
        write(tmp_path / site, {"a": 2, "b": 2}, 100)
    photo(200, 64, 48).save(tmp_path / "north/a/again.bmp")
    found = look(tmp_path / "main", north=str(tmp_path / "north"), south=str(tmp_path / "south"))
    assert of_kind(found, "split_leak") == []
    assert len(of_kind(found, "exact_duplicate")) == 5
    assert warnings_of(found, findings(found, folds=False)) == []


def test_small_and_uneven_classes(tmp_path):
    found = look(write(tmp_path, {"a": 31, "b": 9, "c": 2}))
    assert [(severity, note) for severity, _, note in of_kind(found, "small_class")] == [
        ("error", "class c has 2 usable images"),
        ("warning", "class b has 9 usable images"),
    ]
    assert of_kind(found, "imbalance") == [("warning", [], "class a has 31 images, c 2: 15.5 times as many")]


def test_classes_are_uneven_from_three_to_one_on(tmp_path):
    assert of_kind(look(write(tmp_path / "less", {"a": 29, "b": 10})), "imbalance") == []
    found = look(write(tmp_path / "more", {"a": 30, "b": 10}))
    assert of_kind(found, "imbalance") == [("note", [], "class a has 30 images, b 10: 3.0 times as many")]


@pytest.mark.parametrize(("second", "name"), [("test", "test"), ("val", "validation")])
def test_a_class_that_the_given_test_set_lacks(tmp_path, second, name):
    write(tmp_path / "train", {"a": 12, "b": 12})
    write(tmp_path / second, {"a": 12}, 100)
    found = look(tmp_path)
    assert of_kind(found, "small_class") == [("warning", [], f"{name} has no image of b, so no recall either")]
    severities = {one.severity for one in findings(found, split=SplitConfig(val="given")) if one.kind == "small_class"}
    assert severities == {"warning" if second == "test" else "error"}


@pytest.mark.parametrize("lacking", ["train", "val"])
def test_a_class_that_given_training_or_validation_images_lack(tmp_path, lacking):
    for number, split in enumerate(("train", "val", "test")):
        write(tmp_path / split, {"a": 12} if split == lacking else {"a": 12, "b": 12}, 100 * number)
    name = {"train": "train", "val": "validation"}[lacking]
    assert of_kind(look(tmp_path), "small_class") == [("error", [], f"{name} has no image of b")]


@pytest.mark.parametrize(
    ("given", "missing"),
    [
        (("train",), ["validation"]),
        (("test",), ["train"]),
        (("val", "test"), ["train"]),
        (("train", "val"), []),
        (("train", "test"), []),  # validation is drawn from train
    ],
)
def test_given_splits_without_training_or_validation_images(tmp_path, given, missing):
    lines = ["path,label,split"]
    for number, split in enumerate(given * 24):
        photo(number, 64, 48).save(tmp_path / f"{number}.png")
        lines.append(f"{number}.png,{'ab'[number // len(given) % 2]},{split}")
    (tmp_path / "images.csv").write_text("\n".join(lines))
    told = [("error", [], f"{name} has no image of a, b") for name in missing]
    assert of_kind(look(tmp_path / "images.csv"), "small_class") == told


def test_copies_in_two_folds_are_a_leak_where_the_folds_are_used(tmp_path):
    lines = ["path,label,fold"]
    for number in range(24):
        photo(number, 64, 48).save(tmp_path / f"{number}.png")
        lines.append(f"{number}.png,{'ab'[number % 2]},{number // 12}")
    photo(0, 64, 48).save(tmp_path / "again.bmp")
    (tmp_path / "images.csv").write_text("\n".join([*lines, "again.bmp,a,1"]))
    found = look(tmp_path / "images.csv")
    assert [(severity, note) for severity, _, note in of_kind(found, "split_leak")] == [
        ("error", "2 images, the same pixels, in fold 0 and fold 1")
    ]
    (told,) = warnings_of(found, findings(found, folds=True))
    assert told.startswith("1 picture has copies in two splits that the data gives")
    assert warnings_of(found, findings(found, folds=False)) == []
    assert [one.kind for one in findings(found, folds=False)] == ["exact_duplicate"]


def test_odd_sizes(tmp_path):
    write(tmp_path, {"a": 12, "b": 12})
    photo(50, 400, 90).save(tmp_path / "a/long.png")
    photo(51, 20, 30).save(tmp_path / "b/tiny.png")
    assert of_kind(look(tmp_path), "odd_size") == [
        ("note", ["a/long.png"], "4 times as long as wide, or more: a crop keeps only the middle"),
        ("note", ["b/tiny.png"], "a shorter side below 32 pixels, so they are enlarged"),
    ]
    ((_, small, note),) = [one for one in of_kind(look(tmp_path), "odd_size", 64) if "crop" not in one[2]]
    assert len(small) == 25
    assert note == "a shorter side below the study’s 64 pixels, so they are enlarged"


def test_pictures_unlike_the_others(tmp_path):
    write(tmp_path, {"a": 30, "b": 30})
    changed = {
        "grey": photo(60, 64, 48).convert("L").convert("RGB"),
        "blurred": photo(61, 64, 48).filter(ImageFilter.GaussianBlur(4)),
        "dark": photo(62, 64, 48).point(lambda value: value // 4),
        "bright": photo(63, 64, 48).point(lambda value: 205 + value // 5),
        "blank": Image.new("RGB", (64, 48), (90, 120, 150)),
        "blank2": Image.new("RGB", (64, 48), (90, 120, 151)),
    }
    for name, picture in changed.items():
        picture.save(tmp_path / "a" / f"{name}.png")
    found = {note: paths for _, paths, note in of_kind(look(tmp_path), "outlier")}
    assert "a/dark.png" in found["much darker than the others"]
    assert "a/bright.png" in found["much brighter than the others"]
    assert "a/blurred.png" in found["much more blurred than the others"]
    assert found["grey among pictures in colour"] == ["a/grey.png"]
    assert found["blank: hardly any contrast"] == ["a/blank.png", "a/blank2.png"]


def test_pictures_that_are_only_alike_keep_their_labels_and_stay_together(tmp_path):
    """Frames of one scene: one after another alike enough, so that they are a cluster, and some with another label."""
    write(tmp_path, {"a": 12, "b": 12})
    frames = scenes(12)
    for number, frame in enumerate(frames):
        frame.save(tmp_path / "ab"[number > 5] / f"frame{number:02}.png")
    frames[11].save(tmp_path / "a/same.bmp")
    found = look(tmp_path)
    (conflict,) = of_kind(found, "label_conflict")
    assert conflict == ("error", ["a/same.bmp", "b/frame11.png"], "2 images, the same pixels, labelled a and b")
    ((severity, paths, note),) = of_kind(found, "near_duplicate")
    assert (severity, len(paths)) == ("warning", 13)
    assert note.startswith("13 images, likeness 0.9")
    assert note.endswith(", labelled a and b")
    aside = found.images[found.images["status"] == "set_aside"]
    assert list(aside["path"]) == ["a/same.bmp", "b/frame11.png"]
    with pytest.raises(UserError) as caught:
        refuse_losses(found, 0.05)
    assert str(caught.value) == (
        "2 of 37 files are set aside (2 copies have different labels: a and b)\n"
        "  expected: at most 5% of the files, and no whole class\n"
        "  fix:      correct the labels, or keep such copies: --set check.label_conflicts=keep; "
        "'unfreeze check DATA' lists them all; to run without these files: --set check.max_set_aside=0.06"
    )


def scenes(count: int) -> list[Image.Image]:
    """One scene with a thing that wanders through it."""
    frames = []
    for number in range(count):
        frame = photo(900, 128, 96)
        frame.paste(photo(901, 20, 16), (3 * number, 30))
        frames.append(frame)
    return frames


def test_the_worst_comes_first(tmp_path):
    write(tmp_path, {"a": 30, "b": 9})
    photo(0, 64, 48).save(tmp_path / "b/same.bmp")
    photo(1, 64, 48).save(tmp_path / "a/again.bmp")
    (tmp_path / "a/empty.jpg").write_bytes(b"")
    order = [(one.severity, one.kind) for one in findings(look(tmp_path))]
    assert order == [
        ("error", "label_conflict"), ("warning", "unreadable"), ("warning", "small_class"),
        ("warning", "exact_duplicate"), ("note", "imbalance"),
    ]  # fmt: skip


def test_a_run_stops_where_too_much_is_lost(tmp_path):
    write(tmp_path, {"a": 20, "b": 20})
    (tmp_path / "a/1.jpg").write_bytes(b"")
    (tmp_path / "a/2.jpg").write_bytes(b"")
    refuse_losses(look(tmp_path), 0.05)
    (tmp_path / "a/3.jpg").write_text("text")
    with pytest.raises(UserError) as caught:
        refuse_losses(look(tmp_path), 0.05)
    assert str(caught.value) == (
        "3 of 43 files are set aside (2 empty file, 1 not an image)\n"
        "  expected: at most 5% of the files, and no whole class\n"
        "  fix:      empty file: copy or download the files again, or remove them from the data; "
        "not an image: remove the files from the data, or convert them to JPEG or PNG; "
        "'unfreeze check DATA' lists them all; to run without these files: --set check.max_set_aside=0.07"
    )
    refuse_losses(look(tmp_path), 0.07)


def test_a_run_stops_where_a_class_loses_all_its_images(tmp_path):
    write(tmp_path, {"a": 60, "b": 60})
    (tmp_path / "c").mkdir()
    (tmp_path / "c/1.jpg").write_bytes(b"")
    with pytest.raises(
        UserError, match=r"^1 of 121 files are set aside \(1 empty file\); classes without a usable file: c \(all 1\)"
    ):
        refuse_losses(look(tmp_path), 0.05)


def test_a_finding_never_changes_the_files(tmp_path):
    write(tmp_path, {"a": 12, "b": 12})
    photo(0, 64, 48).save(tmp_path / "b/same.bmp")

    def tree() -> list[tuple[str, int, bytes]]:
        return [(str(path), path.stat().st_mtime_ns, path.read_bytes()) for path in sorted(tmp_path.rglob("*.*"))]

    before = tree()
    found = findings(look(tmp_path))
    assert found
    assert tree() == before
