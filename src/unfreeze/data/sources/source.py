"""Labelled files of a study, the kinds of sources that list them, and names of splits."""

import re
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from unfreeze.config.choices import is_named
from unfreeze.config.schema import ColumnsConfig

SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "test": "test",
    "testing": "test",
}
"""Names of splits in data, and the split that each means."""

_FOLDER_NAMES = {
    **SPLIT_NAMES,
    "dev": "validation",
    "eval": "validation",
    "evaluation": "validation",
    "holdout": "test",
    "trainings": "train",
    "validierungs": "validation",
    "validierung": "validation",
    "entrenamiento": "train",
    "validacion": "validation",
    "prueba": "test",
    "pruebas": "test",
    "entrainement": "train",
    "treino": "train",
    "treinamento": "train",
    "validacao": "validation",
    "teste": "test",
    "addestramento": "train",
    "validazione": "validation",
}

_ADDED = "data|dataset|daten|datos|dados|images?|imgs?|pictures|photos|samples|split|sets?|folder|part|shard|chunk"

_SPLIT_FOLDER = re.compile(
    rf"\d*[ _.-]*(?:(?:seg|{_ADDED})[ _.-]+)?({'|'.join(_FOLDER_NAMES)})[ _.-]*(?:{_ADDED})?[ _.()-]*\d*[ _.()-]*",
    re.IGNORECASE | re.ASCII,
)


def split_of(folder: str) -> str:
    """Return the split that a folder's name means, such as ``training_set``, ``Test Data`` or ``seg_train``, or "".

    Names may be German, Spanish, French, Portuguese or Italian, with accents or without.
    """
    plain = "".join(letter for letter in unicodedata.normalize("NFD", folder) if not unicodedata.combining(letter))
    found = _SPLIT_FOLDER.fullmatch(plain)
    return _FOLDER_NAMES[found[1].lower()] if found else ""


@dataclass(frozen=True, slots=True)
class Item:
    """One labelled file.

    Attributes:
        path: posix path relative to the root of its source.
        label: name of its class.
        given_split: "" (to be drawn), train, validation or test.
        source: "" for the main data, else the name of a further test set.
        group, fold: given by the data; "" for none.
        more: further columns of the data with their values as text.
    """

    path: str
    label: str
    given_split: str
    source: str
    group: str = ""
    fold: str = ""
    more: tuple[tuple[str, str], ...] = ()


class Ignored(NamedTuple):
    """A file or folder (with "/" at the end of its path) that is not used as data, and the reason."""

    path: str
    reason: str
    source: str = ""


@dataclass(frozen=True)
class Source:
    """All files of a study, and how the data was read.

    Attributes:
        roots: folder by source ("" for the main data).
        items: the labelled files.
        ignored: files and folders that are not used as data.
        classes: sorted names.
        kind: kind of data: "class folders", "split folders", "table", "Food-101", "Hugging Face".
        split_names: split (train, validation, test) by the name of the folder, file or value that gives it.
        guessed: sentences on what the data does not say itself, each with the setting to change it.
    """

    roots: dict[str, Path]
    items: tuple[Item, ...]
    ignored: tuple[Ignored, ...]
    classes: tuple[str, ...]
    kind: str = ""
    split_names: Mapping[str, str] = field(default_factory=dict)
    guessed: tuple[str, ...] = ()


@dataclass(frozen=True)
class DataRequest:
    """Settings of a study on its main data.

    Attributes:
        data: as the study file names it.
        base: the folder that relative paths refer to.
        follow_symlinks: whether links to other folders and to files outside of a folder are followed.
        columns: meaning of the columns of tables.
        labels_from: part of a picture's path that is its label; for folders.
    """

    data: str
    base: Path
    follow_symlinks: bool
    columns: ColumnsConfig
    labels_from: str | None


@dataclass(frozen=True)
class SourceKind:
    """An entry of the registry of sources.

    Attributes:
        supported: description of the data, for messages that list all kinds.
        read: lists the files.
        word: the name of such data, or its start if it ends with ``:``; "" for data named by a path.
        recognises: tells from the path and the base folder whether data without a word is of this kind.
        labels_in_paths: whether ``labels_from`` is allowed.
        classes: number of classes if it is known without the files, so that a study can be planned before its data
            exists; else 0.
    """

    supported: str
    read: Callable[[DataRequest], Source]
    word: str = ""
    recognises: Callable[[str, Path], bool] = lambda data, base: False
    labels_in_paths: bool = False
    classes: int = 0

    def is_kind_of(self, data: str, base: Path) -> bool:
        """Tell whether data is of this kind."""
        return is_named(data, [self.word]) if self.word else self.recognises(data, base)
