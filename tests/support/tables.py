"""Tables for the tests of data/, the files that they list, and what their messages say to do."""

import re
import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path

import pandas as pd
import pytest

from tests.support.pictures import save
from unfreeze.config.load import load_yaml
from unfreeze.config.schema import ColumnsConfig
from unfreeze.data.sources import open_source
from unfreeze.data.sources.source import Source
from unfreeze.errors import UserError

TABLE = "a table (.csv, .tsv, .txt, .jsonl or .parquet) with a column of file paths and a column of labels"


def write(folder: Path, text: str, name: str = "images.csv", encoding: str = "utf-8") -> str:
    (folder / name).write_bytes(text.encode(encoding))
    return name


def put(folder: Path, names: Iterable[str]) -> None:
    """Write a small picture, each another, for each name."""
    for number, name in enumerate(dict.fromkeys(names)):
        save(folder / name, number)


def source(folder: Path, text: str, name: str = "images.csv", **columns: object) -> Source:
    return open_source(write(folder, text, name), {}, folder, columns=ColumnsConfig.model_validate(columns))


def refused(folder: Path, text: str, name: str = "images.csv", **columns: object) -> UserError:
    with pytest.raises(UserError) as caught:
        source(folder, text, name, **columns)
    return caught.value


def labels(found: Source) -> dict[str, str]:
    return {item.path: item.label for item in found.items}


def splits(found: Source) -> dict[str, str]:
    return {item.path: item.given_split for item in found.items}


def rows(names: Sequence[str], values: Sequence[object]) -> str:
    return "".join(f"{name},{value}\n" for name, value in zip(names, values, strict=True))


def columns_in(text: str) -> ColumnsConfig:
    """The first line ``columns: {...}`` of a message, as a study file would have it."""
    found = re.search(r"columns: \{.*?\}", text)
    assert found, text
    return ColumnsConfig.model_validate(load_yaml(found[0], "the message")["columns"])


def done(error: UserError) -> Path:
    """Run the command that a message ends in; the path that it says to give then."""
    found = re.search(r"(python -c .*), then give (\S+)$", error.fix)
    assert found, error.fix
    _, _, script = shlex.split(found[1])
    exec(script, {})
    return Path(found[2])


def after(error: UserError) -> Source:
    """What is read once the command was run that a message ends in."""
    path = done(error)
    return open_source(str(path), {}, path.parent)


def read_back(path: Path) -> list[list[str]]:
    return pd.read_csv(path, dtype=str, keep_default_na=False).to_numpy().tolist()
