"""Read data sets of Hugging Face by name or from a local folder, with the package ``datasets``."""

import contextlib
import hashlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from unfreeze.data.sources.path_labels import check_names
from unfreeze.data.sources.source import SPLIT_NAMES, Ignored, Item, Source, SourceKind
from unfreeze.errors import UserError
from unfreeze.storage.atomic import replacing
from unfreeze.storage.cache import cache_folder

PREFIX = "hf:"
_EXPECTED = "hf:owner/name of a data set of images, or hf:FOLDER"
_SIGNATURES = ((b"\xff\xd8", ".jpg"), (b"\x89PNG", ".png"), (b"RIFF", ".webp"), (b"GIF8", ".gif"), (b"BM", ".bmp"))


def read_huggingface(data: str, base: Path) -> Source:
    """Load a data set with one image and one label column, and write its images, byte for byte, below the cache.

    The label column has the type ClassLabel, or is text named ``label`` or ``labels``.

    Args:
        data: ``hf:`` and owner/name, or ``hf:`` and a folder that ``datasets`` can load.
        base: the folder that a local folder is relative to.

    Raises:
        UserError: the package is not installed, the data set cannot be loaded, or it lacks an image or label column.
    """
    name = data.removeprefix(PREFIX)
    if not name.strip():
        raise UserError(
            f"data: {data} names no data set", _EXPECTED, "name one, for example hf:food101, or hf:. for this folder"
        )
    datasets = _package(data)
    with _no_progress_bars_in_a_pipe(datasets):
        return _read(datasets, data, name, base)


@contextlib.contextmanager
def _no_progress_bars_in_a_pipe(datasets: Any) -> Iterator[None]:
    shown = not datasets.are_progress_bars_disabled() and not sys.stderr.isatty()
    if shown:
        datasets.disable_progress_bars()
    try:
        yield
    finally:
        if shown:
            datasets.enable_progress_bars()


def _read(datasets: Any, data: str, name: str, base: Path) -> Source:
    local = (base / Path(name).expanduser()).resolve()
    try:
        if (local / "dataset_info.json").is_file() or (local / "dataset_dict.json").is_file():
            loaded = datasets.load_from_disk(str(local))
        elif local.is_dir():
            loaded = datasets.load_dataset("imagefolder", data_dir=str(local))
        else:
            loaded = datasets.load_dataset(name)
    except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
        raise UserError(
            f"data: {data} cannot be loaded: {str(error).strip().splitlines()[0]}",
            _EXPECTED,
            "correct the name, or download it once with a network connection: "
            f'python -c "from datasets import load_dataset; load_dataset({name!r})"',
        ) from error
    parts = dict(loaded) if isinstance(loaded, datasets.DatasetDict) else {"train": loaded}
    given = len(parts) > 1
    items, ignored = dict[Item, None](), list[Ignored]()
    classes: set[str] = set()
    root = cache_folder() / "datasets" / hashlib.sha256(f"{data} {base}".encode()).hexdigest()[:16]
    for split, rows in parts.items():
        if split not in SPLIT_NAMES:
            raise UserError(f"data: {data} has a split {split}", "train, validation and test", "use one with these")
        image, label = _columns(datasets, data, rows.features)
        names = getattr(rows.features[label], "names", None)  # None: the labels are text
        classes |= set(names or ())
        for number, row in enumerate(rows.cast_column(image, datasets.Image(decode=False))):
            chosen = row[label]
            if names is not None and chosen is not None:
                chosen = names[chosen] if 0 <= chosen < len(names) else None
            if not chosen:
                raise UserError(
                    f"data: {data}: image {number} of {split} has no label", "a label for every image",
                    "leave that split out, or write a table of the files that have a label",
                )  # fmt: skip
            classes.add(chosen)
            item = Item(_write(data, root, row[image], base), chosen, SPLIT_NAMES[split] if given else "", "")
            if item in items:
                ignored.append(Ignored(item.path, "listed twice with the same label"))
            items[item] = None
    if len(classes) < 2:
        raise UserError(
            f"data: {data} has {len(classes)} classes: {', '.join(classes)}", "at least two", "use another data set"
        )
    check_names("label", root, classes)
    names = {split: SPLIT_NAMES[split] for split in parts} if given else {}
    return Source({"": root}, tuple(items), tuple(ignored), tuple(sorted(classes)), "Hugging Face", names)


def _package(data: str) -> Any:
    try:
        import datasets
    except ImportError as error:
        raise UserError(
            f"data: {data}: the package datasets is not installed", "this package", 'pip install "unfreeze[datasets]"'
        ) from error
    return datasets


def _columns(datasets: Any, data: str, features: Any) -> tuple[str, str]:
    images = [name for name, feature in features.items() if isinstance(feature, datasets.Image)]
    labels = [name for name, feature in features.items() if isinstance(feature, datasets.ClassLabel)]
    if not labels:  # a text column of this name also counts
        labels = [name for name in features if name in ("label", "labels") and features[name].dtype == "string"]
    if len(images) != 1 or len(labels) != 1:
        raise UserError(
            f"data: {data} has {len(images)} image and {len(labels)} label columns: {', '.join(features)}",
            "one of each",
            "write a table of its files instead",
        )
    return images[0], labels[0]


def _write(data: str, root: Path, image: dict[str, Any], base: Path) -> str:
    """Write an image, named by its content, unless it exists; return its path relative to the root."""
    try:
        content = image["bytes"] if image["bytes"] is not None else (base / image["path"]).read_bytes()
    except OSError as error:
        raise UserError(f"data: {data}: {error}", "the files of the data set", "download it again") from error
    suffix = next((end for start, end in _SIGNATURES if content.startswith(start)), ".img")
    name = hashlib.sha256(content).hexdigest()
    path = root / name[:2] / f"{name}{suffix}"
    if not path.is_file() or path.read_bytes() != content:
        with replacing(path) as temporary:
            temporary.write_bytes(content)
    return path.relative_to(root).as_posix()


HUGGINGFACE = SourceKind("hf:owner/name", lambda request: read_huggingface(request.data, request.base), word=PREFIX)
