"""File names of augmented copies."""

import re
from pathlib import Path

import pytest

from tests.support.photos import TURNED, photo
from tests.support.pictures import catalog
from unfreeze.config.load import load_yaml
from unfreeze.config.schema import SplitConfig
from unfreeze.data.catalog import Catalog, build_catalog
from unfreeze.data.lookalikes import find_families
from unfreeze.data.quality import findings, warnings_of
from unfreeze.data.sources import open_source
from unfreeze.data.split import draw_split

ENDS = {
    "PlantVillage": ("", "_90deg", "_180deg", "_new30degFlipLR", "_FlipTB"),
    "rot": ("", "_rot90", "-rotated", "_rot_270"),
    "flips": ("", "_flipped", "_hflip", "_horizontal_flip", "_flip_x"),
    "numbers": ("_aug1", "_aug2", "_aug_3", "_augmented_4"),
    "several": ("", "_flip_blur", "_bright_crop2", "_noise-mirrored"),
    "Roboflow": (".rf.0123456789abcdef0123456789abcdef", ".rf.fedcba9876543210fedcba9876543210"),
    "Augmentor": ("_01234567-89ab-cdef-0123-456789abcdef", "_f1234567-89ab-cdef-0123-456789abcdef"),
    "downloads": ("", " (1)", " (2)"),
    "copied": ("", " - Copy", " copy 2"),
}


def named(names: list[str], **more: str) -> Catalog:
    return catalog([{"path": name, "label": name.split("/")[0], "sha256": name, **more} for name in names])


@pytest.mark.parametrize("kind", ENDS)
@pytest.mark.parametrize("folder", ["", "images/"])
def test_suffixes_are_known_and_the_group_keeps_the_files_of_each_name_together(kind, folder):
    names = {
        f"{folder}{label}/IMG_{number}": [f"{folder}{label}/IMG_{number}{end}.jpg" for end in ENDS[kind]]
        for label in ("healthy", "rust")
        for number in range(100, 110)
    }
    found = find_families(named([path for paths in names.values() for path in paths]).images)
    assert found is not None
    assert found.names == 20
    assert len(found.rows) == 20 * len(ENDS[kind])
    assert set(found.suffixes) <= set(ENDS[kind]) | {"_flip", "_blur", "_bright", "_crop2", "_noise", "-mirrored"}
    for stem, paths in names.items():
        assert {re.search(found.group, path).group(1) for path in paths} == {stem.removeprefix(folder)}


def test_names_without_an_extension_are_known():
    found = find_families(named([f"a/{number}{end}" for number in range(9) for end in ("", "_flip")]).images)
    assert found is not None
    assert re.search(found.group, "a/7_flip").group(1) == re.search(found.group, "a/7").group(1) == "a/7"


@pytest.mark.parametrize(
    "names",
    [
        [f"{label}/{label} ({number}).jpg" for label in "abcdefgh" for number in range(30)],  # numbered by Windows
        [f"{name}_rot_{number}.jpg" for name in ("apple/black", "pear/brown") for number in range(80)],
        [f"a/IMG_{number}.jpg" for number in range(80)],
        [f"a/{number}_flip.jpg" for number in range(80)],  # all were flipped, none is there twice
        [f"a/{number}.jpg" for number in range(80)] + ["a/1_flip.jpg", "a/2_flip.jpg"],
        [f"a/{number}.jpg" for number in range(80)] + [f"b/{number}_flip.jpg" for number in range(80)],
    ],
)  # fmt: skip
def test_other_names_say_nothing(names):
    assert find_families(named(names).images) is None


def test_files_that_are_kept_together_anyway_are_not_reported():
    names = [f"a/{number}{end}.jpg" for number in range(20) for end in ("", "_flip")]
    assert find_families(named(names, group="everything").images) is None
    rows = [{"path": name, "label": "a", "sha256": name, "cluster": name.split("_")[0].split(".")[0]} for name in names]
    assert find_families(catalog(rows).images) is None


def test_what_the_warning_says_keeps_them_on_one_side(tmp_path):
    """Turned by 15 degrees they are no copies by any comparison of pictures."""
    for label, start in (("healthy", 0), ("rust", 100)):
        (tmp_path / label).mkdir()
        for number in range(start, start + 8):
            for end, make in (("", None), ("_90deg", TURNED["rotate_90"]), ("_new15deg", lambda one: one.rotate(15))):
                picture = photo(number)
                (make(picture) if make else picture).save(tmp_path / label / f"leaf{number}{end}.png")

    def look(group: str | None = None) -> Catalog:
        return build_catalog(open_source(str(tmp_path), {}, Path.cwd()), group)

    found = look()
    (told,) = warnings_of(found, findings(found, folds=False))
    assert told == (
        "48 images have 16 names apart from suffixes of augmented copies (_90deg, _new15deg), and the split may "
        "separate them; to keep images of one name together: split: {group: "
        r"'(?i)([^/]*/?[^/]+?)(?:[ _.-]+(?:(?:new)?-?\d+ ?deg(?:rees|flip..)?))*\.\w+$'}"
    )
    assert (findings(look())[0].kind, findings(look())[0].note) == ("near_duplicate", told)
    line = told[told.index("split: {") :]
    found = look(load_yaml(line, "the message")["split"]["group"])
    assert warnings_of(found, findings(found, folds=False)) == []
    rows = found.images.set_index("id").assign(side=draw_split(found, SplitConfig()))
    stems = rows["path"].str.extract(r"(leaf\d+)", expand=False)
    assert rows.groupby(stems)["side"].nunique().max() == 1
    assert set(rows["side"]) == {"train", "validation", "test"}
