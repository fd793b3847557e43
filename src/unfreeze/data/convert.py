"""Commands that save what is not read as PNG files, in a folder beside: a folder of data is never written to."""

import json
import shlex
from collections.abc import Collection
from pathlib import Path


def as_png(root: Path, suffixes: Collection[str]) -> str:
    """Return the command that saves the pictures with these suffixes, which Pillow opens, in ROOT-png."""
    return _command(root, "png", suffixes, 'Image.open(p).save(q.with_suffix(".png"))')


def pages_as_png(root: Path, suffixes: Collection[str]) -> str:
    """Return the command that saves each page or frame as NAME.pageN.png in ROOT-pages."""
    save = 'page.save(q.with_suffix(f".page{n}.png"))'
    return _command(root, "pages", suffixes, save, "for n, page in enumerate(ImageSequence.Iterator(Image.open(p)))")


def scaled(root: Path, suffixes: Collection[str]) -> str:
    """Return the command that saves 8-bit pictures in ROOT-scaled, the largest value of all of them white."""
    most = 'for m in [max(Image.open(p).convert("L").getextrema()[1] for p in files)] for p, q in zip(files, out)'
    save = 'Image.open(p).convert("L").point(lambda v: min(255, v * 255 // max(1, m))).save(q.with_suffix(".png"))'
    return _command(root, "scaled", suffixes, save, all_files=most)


def slices_as_png(root: Path, suffixes: Collection[str]) -> str:
    """Return the command that saves the middle slice of each NIfTI volume, its largest value white, in ROOT-slices."""
    save = 'Image.fromarray((255 * v / max(1, v.max())).astype("uint8")).save(q.with_suffix(".png"))'
    middle = "for a in [nibabel.load(p).get_fdata()] for v in [a[:, :, a.shape[2] // 2].clip(0)]"
    return f"pip install nibabel && {_command(root, 'slices', suffixes, save, middle, 'import nibabel; ')}"


_EACH = "for p, q in zip(files, out)"


def _command(
    root: Path,
    name: str,
    suffixes: Collection[str],
    save: str,
    parts: str = "",
    imports: str = "",
    all_files: str = _EACH,
) -> str:
    ends = ", ".join(json.dumps(suffix) for suffix in sorted(suffixes))
    code = (
        f"{imports}from pathlib import Path; from PIL import Image, ImageSequence; "
        f"d = Path({json.dumps(str(root.resolve()), ensure_ascii=False)}); "
        f'files = sorted(p for p in d.rglob("*") if p.name.lower().endswith(({ends},))); '
        f'out = [Path(str(d) + "-{name}") / p.relative_to(d) for p in files]; '
        "[q.parent.mkdir(parents=True, exist_ok=True) for q in out]; "
        f"[{save} {all_files}{' ' if parts else ''}{parts}]"
    )
    return f"python -c {shlex.quote(code)}"
