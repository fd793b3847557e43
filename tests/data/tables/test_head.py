"""What lies above the rows of a table."""

import pytest

from tests.support.tables import labels, put, source

NAMES = ["a1.png", "a2.png", "a3.png"]
WANTED = {"a1.png": "0", "a2.png": "0", "a3.png": "1"}


@pytest.mark.parametrize(
    "text",
    [
        "image,kind\na1.png,0\na2.png,0\na3.png,1\n",
        "sep=;\nimage;kind\na1.png;0\na2.png;0\na3.png;1\n",
        "Report, line 4\n\nimage;kind\na1.png;0\na2.png;0\na3.png;1\n",
        "Report,,\n,,\nimage,kind,\na1.png,0,\na2.png,0,\na3.png,1,\n,,\n",
        "# image,kind\na1.png,0\na2.png,0\na3.png,1\n",
        "# made by hand\n# in two days\nimage,kind\na1.png,0\na2.png,0\na3.png,1\n",
        "# made by hand\na1.png,0\na2.png,0\na3.png,1\n",
        "a1,0\na2,0\na3,1\n",
    ],
)
def test_no_image_is_taken_for_a_header(tmp_path, text):
    put(tmp_path, NAMES)
    assert labels(source(tmp_path, text)) == WANTED


@pytest.mark.parametrize("text", ["# image kind\na1 0\na2 0\na3 1\n", "#image kind\na1 0\na2 0\na3 1\n"])
def test_a_header_in_a_comment(tmp_path, text):
    put(tmp_path, NAMES)
    found = source(tmp_path, text, "list.txt")
    assert labels(found) == WANTED
    assert "image names the files, and kind is the label" in found.guessed[0]


def test_numbers_may_be_the_names_of_one_hot_columns(tmp_path):
    put(tmp_path, NAMES)
    assert labels(source(tmp_path, "image,0,1\na1,1,0\na2,1,0\na3,0,1\n")) == WANTED


def test_what_is_above_is_reported_and_lines_keep_their_numbers(tmp_path):
    put(tmp_path, NAMES)
    text = "Report 4;;\n;;\nimage;kind;\na1.png;0;\na2.png;0;\na3.png;1;\n"
    assert source(tmp_path, text).guessed[0] == (
        "the first 2 lines are above the table and not read, first Report 4; a table whose first line names the "
        "columns has none"
    )
    with pytest.raises(Exception, match="no kind in 1 line: 7"):
        source(tmp_path, text + "a1.png;;\n")


def test_a_single_name_is_no_title(tmp_path):
    put(tmp_path, NAMES)
    with pytest.raises(Exception, match="more fields than its first row"):
        source(tmp_path, "image\na1,x\na2,x\na3,y\n")


@pytest.mark.parametrize("name", ["train.lst", "labels", "list.dat"])
def test_tables_by_any_name(tmp_path, name):
    put(tmp_path, NAMES)
    assert labels(source(tmp_path, "a1.png\t0\na2.png\t0\na3.png\t1\n", name)) == WANTED
    lines = "".join(f'{{"image": "{file}", "about": {{"class": "{label}"}}}}\n' for file, label in WANTED.items())
    found = source(tmp_path, lines, name)
    assert labels(found) == WANTED
    assert found.guessed[0].startswith("the column image names the files, and about.class is the label;")
