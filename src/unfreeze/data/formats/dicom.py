"""Read DICOM files with pydicom, if it is installed: the first frame, with the window of its header."""

import contextlib
import warnings
from collections.abc import Iterator
from typing import IO, TYPE_CHECKING, Any

from PIL import Image, ImageOps

from unfreeze.data.formats.reading import INVERTED, Reading
from unfreeze.data.unusable import DAMAGED, DICOM_PACKED, NO_PICTURE, NO_PYDICOM, NO_WINDOW, Undecodable, too_large

if TYPE_CHECKING:
    from pydicom import Dataset


FORMAT = "DICOM"
_START, _MARK = 128, b"DICM"  # bytes of the preamble, and what follows it


def is_dicom(file: IO[bytes]) -> bool:
    """Tell whether an open file is DICOM by its content, and return to its start."""
    file.seek(_START)
    found = file.read(len(_MARK)) == _MARK
    file.seek(0)
    return found


def header(file: IO[bytes], reading: Reading) -> tuple[str, tuple[int, int], bool]:
    """Return the mode of the loaded picture, its (width, height) in pixels, and whether frames follow the first."""
    found = _read(file, reading, pixels=False)
    return _mode(found), (int(found.Columns), int(found.Rows)), int(found.get("NumberOfFrames") or 1) > 1


def load(file: IO[bytes], reading: Reading) -> Image.Image:
    """Return the first frame: in 8 bits if the header has a window, else the stored grey values, I;16.

    Raises:
        Undecodable: pydicom is not installed, or the file has no picture or cannot be decoded.
    """
    found = _read(file, reading, pixels=True)
    with _refusals():
        return _picture(found)


def _read(file: IO[bytes], reading: Reading, pixels: bool) -> "Dataset":
    try:
        from pydicom import dcmread
    except ImportError as error:
        raise Undecodable(NO_PYDICOM) from error
    with _refusals():
        found = dcmread(file, stop_before_pixels=not pixels)
        if "Rows" not in found or "PhotometricInterpretation" not in found or (pixels and "PixelData" not in found):
            raise Undecodable(NO_PICTURE)
        if (size := int(found.Rows) * int(found.Columns)) > reading.max_pixels:
            raise Undecodable(too_large(size, reading.max_pixels))
        _take_shared(found)
    return found


@contextlib.contextmanager
def _refusals() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # on unusual metadata
        try:
            yield
        except Undecodable:
            raise
        except MemoryError:
            raise
        except (RuntimeError, NotImplementedError) as error:
            raise Undecodable(DICOM_PACKED) from error  # no plugin decodes it
        except Exception as error:  # a damaged file may raise anything
            raise Undecodable(DAMAGED) from error


def _take_shared(found: "Dataset") -> None:
    """Move window and scale of a file with many frames to the place where files of one frame have them."""
    for kind in ("PerFrameFunctionalGroupsSequence", "SharedFunctionalGroupsSequence"):
        for groups in list(found.get(kind) or [])[:1]:
            for name in ("FrameVOILUTSequence", "PixelValueTransformationSequence"):
                for group in list(groups.get(name) or [])[:1]:
                    for element in group:
                        if element.tag not in found:
                            found.add(element)


def _mode(found: "Dataset") -> str:
    grey = str(found.PhotometricInterpretation).startswith("MONOCHROME")
    return ("I;16" if grey and not _has_window(found) else "L") if grey else "RGB"


def _has_window(found: "Dataset") -> bool:
    return bool(found.get("VOILUTSequence")) or None not in (found.get("WindowCenter"), found.get("WindowWidth"))


def _picture(found: "Dataset") -> Image.Image:
    import numpy as np
    from pydicom.pixels.processing import apply_color_lut, apply_modality_lut, apply_voi_lut
    from pydicom.pixels.utils import pixel_array

    values = pixel_array(found, index=0)
    kind = str(found.PhotometricInterpretation)
    if not kind.startswith("MONOCHROME"):
        if kind == "PALETTE COLOR":
            values = apply_color_lut(values, found)
        if values.dtype != np.uint8:  # mostly palettes of 16 bits
            values = (values >> 8 if values.max() > 255 else values).astype(np.uint8)
        return _named(Image.fromarray(values))
    if not _has_window(found):
        if values.min() < 0:
            raise Undecodable(NO_WINDOW)
        stored = Image.fromarray(values.astype(np.uint16))
        stored.info[INVERTED] = kind == "MONOCHROME1"
        return _named(stored)
    scaled = apply_modality_lut(values, found)
    shown = apply_voi_lut(scaled.astype(np.int64) if found.get("VOILUTSequence") else scaled, found)
    least, most = _range(found)
    grey = Image.fromarray(((shown - least) * (255 / (most - least))).round().clip(0, 255).astype(np.uint8))
    return _named(ImageOps.invert(grey) if kind == "MONOCHROME1" else grey)


def _named(picture: Image.Image) -> Image.Image:
    picture.format = FORMAT
    return picture


def _range(found: "Dataset") -> tuple[float, float]:
    """Return the values that ``apply_voi_lut`` gives for black and white (PS3.3 C.11.2)."""
    table: Any = found.get("VOILUTSequence") or found.get("ModalityLUTSequence")
    if table:
        return 0, 2 ** int(table[0].LUTDescriptor[2]) - 1
    bits, signed = int(found.BitsStored), int(found.PixelRepresentation)
    ends = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    slope, intercept = found.get("RescaleSlope"), found.get("RescaleIntercept")
    if slope is None or intercept is None:
        return ends
    black, white = (float(slope) * end + float(intercept) for end in ends)
    return black, white
