"""DICOM files: the first frame, windowed as the header says; without pydicom the extra that reads them is named."""

import io
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.support.photos import photo
from unfreeze.config.schema import CheckConfig
from unfreeze.data.catalog import build_catalog
from unfreeze.data.decode import decode, header, load, mode_of
from unfreeze.data.formats.reading import USUAL, Reading
from unfreeze.data.image_file import open_regular
from unfreeze.data.sources import open_source
from unfreeze.data.unusable import Undecodable

START = bytes(128) + b"DICM"


def written(values: np.ndarray, **tags) -> bytes:
    """A DICOM file, uncompressed; (frames, height, width), (height, width) or (height, width, 3)."""
    pydicom = pytest.importorskip("pydicom", reason='pydicom is not installed: pip install "unfreeze[dicom]"')
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage, generate_uid

    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=["a picture"])
    made = FileDataset("", {}, file_meta=meta, preamble=bytes(128))
    colour = values.ndim == 3 and values.shape[2] == 3
    if values.ndim == 3 and not colour:
        made.NumberOfFrames = len(values)
    made.Rows, made.Columns = values.shape[:2] if colour else values.shape[-2:]
    made.SamplesPerPixel = 3 if colour else 1
    made.PhotometricInterpretation = "RGB" if colour else "MONOCHROME2"
    if colour:
        made.PlanarConfiguration = 0
    made.BitsAllocated = made.BitsStored = values.dtype.itemsize * 8
    made.HighBit = made.BitsStored - 1
    made.PixelRepresentation = int(values.dtype.kind == "i")
    made.PixelData = values.tobytes()
    for name, value in tags.items():
        setattr(made, name, value)
    file = io.BytesIO()
    pydicom.dcmwrite(file, made)
    return file.getvalue()


def shown(path: Path, content: bytes, reading: Reading = USUAL) -> np.ndarray:
    path.write_bytes(content)
    with open_regular(path) as file:
        told = header(file, reading)
    with open_regular(path) as file:
        image = load(file, reading=reading)
    assert told[:2] == (mode_of(image), image.size)
    return np.asarray(decode(path, reading=reading)).astype(int)


def why(path: Path, content: bytes) -> str:
    path.write_bytes(content)
    with pytest.raises(Undecodable) as caught:
        decode(path)
    return caught.value.reason


def hounsfield() -> np.ndarray:
    """What a scanner stores of values from -1024 to 3071."""
    return np.linspace(0, 4095, 48 * 32).reshape(32, 48).astype(np.uint16)


CT = {"RescaleSlope": 1, "RescaleIntercept": -1024, "BitsStored": 12, "HighBit": 11}


@pytest.mark.parametrize("kind", ["MONOCHROME2", "MONOCHROME1"])
def test_the_window_of_the_header_is_used(tmp_path, kind):
    content = written(hounsfield(), WindowCenter=40, WindowWidth=400, PhotometricInterpretation=kind, **CT)
    expected = np.clip((hounsfield().astype(float) - 1024 - 39.5) / 399 + 0.5, 0, 1) * 255
    expected = 255 - expected if kind == "MONOCHROME1" else expected
    assert np.abs(shown(tmp_path / "a.dcm", content) - expected[..., None]).max() <= 1


def test_of_several_windows_the_first_counts(tmp_path):
    content = written(hounsfield(), WindowCenter=[40, -600], WindowWidth=[400, 1500], **CT)
    one = written(hounsfield(), WindowCenter=40, WindowWidth=400, **CT)
    assert (shown(tmp_path / "a.dcm", content) == shown(tmp_path / "b.dcm", one)).all()


def test_signed_values_with_a_window_are_shown(tmp_path):
    values = hounsfield().astype(np.int16) - 1024
    content = written(values, WindowCenter=40, WindowWidth=400, RescaleSlope=1, RescaleIntercept=0)
    expected = np.clip((values.astype(float) - 39.5) / 399 + 0.5, 0, 1) * 255
    assert np.abs(shown(tmp_path / "a.dcm", content) - expected[..., None]).max() <= 1
    assert why(tmp_path / "b.dcm", written(values)) == (
        "dicom with values below 0 and no window: convert it to png with the window that counts"
    )


def test_a_table_of_the_header_is_used(tmp_path):
    pytest.importorskip("pydicom")
    from pydicom.dataset import Dataset

    table = Dataset()
    table.LUTDescriptor = [256, 0, 8]
    table.LUTData = bytes(range(255, -1, -1))
    table["LUTDescriptor"].VR, table["LUTData"].VR = "US", "OW"
    values = np.arange(256, dtype=np.uint8).reshape(16, 16)
    table.LUTData = np.arange(255, -1, -1).astype("<u2").tobytes()
    content = written(values, VOILUTSequence=[table])
    assert (shown(tmp_path / "a.dcm", content)[..., 0] == 255 - values).all()


@pytest.mark.parametrize("kind", ["MONOCHROME2", "MONOCHROME1"])
def test_without_a_window_the_bits_that_the_data_set_uses_count(tmp_path, kind):
    grey = [np.asarray(photo(number, 48, 32).convert("L")) for number in range(6)]
    for number, values in enumerate(grey):
        path = tmp_path / "data" / "ab"[number % 2] / f"{number}.dcm"
        path.parent.mkdir(parents=True, exist_ok=True)
        deep = values.astype(np.uint16) * 16 + 15
        deep[0, 0] = 4095
        path.write_bytes(written(deep, PhotometricInterpretation=kind))
    catalog = build_catalog(open_source(str(tmp_path / "data"), {}, tmp_path))
    assert catalog.reading == Reading(bits=12)
    assert set(catalog.images["mode"]) == {"I;16"}
    assert set(catalog.images["note"]) == {""}
    expected = 255 - grey[0] if kind == "MONOCHROME1" else grey[0]
    found = np.asarray(decode(tmp_path / "data/a/0.dcm", reading=catalog.reading)).astype(int)
    assert (found[1:, :, 0] == expected[1:]).all()


def test_the_first_frame_counts_and_colours_are_kept(tmp_path):
    frames = np.stack([np.full((8, 8), value, np.uint8) for value in (50, 200)])
    window = {"WindowCenter": 128, "WindowWidth": 256}
    assert set(shown(tmp_path / "a.dcm", written(frames, **window)).ravel()) == {50}
    colours = np.asarray(photo(0, 48, 32))
    assert (shown(tmp_path / "b.dcm", written(colours)) == colours).all()
    for name, several in (("a.dcm", True), ("b.dcm", False)):
        with open_regular(tmp_path / name) as file:
            assert header(file)[2] == ("DICOM", several)


def test_a_folder_of_dicom_files_is_used(tmp_path):
    for number in range(6):
        path = tmp_path / "data" / "ab"[number % 2] / f"IM{number:04}"
        path.parent.mkdir(parents=True, exist_ok=True)
        grey = np.asarray(photo(number, 48, 32).convert("L"))
        path.write_bytes(written(grey, WindowCenter=128, WindowWidth=256))
    images = build_catalog(open_source(str(tmp_path / "data"), {}, tmp_path)).images
    assert set(images["status"]) == {"used"}
    assert set(zip(images["mode"], images["width"], images["height"], strict=True)) == {("L", 48, 32)}


@pytest.mark.parametrize("share", [0.3, 0.6, 0.99])
def test_a_file_that_breaks_off_is_not_used(tmp_path, share):
    content = written(hounsfield(), WindowCenter=40, WindowWidth=400, **CT)
    assert why(tmp_path / "a.dcm", content[: int(len(content) * share)]) in (
        "damaged",
        "dicom without a picture: take it out of the data, or convert it to png with a window where it has one",
    )


def test_what_has_no_picture_is_reported(tmp_path):
    pytest.importorskip("pydicom")
    assert why(tmp_path / "a.dcm", START + b"\x02\0\0\0UL\x04\0" + bytes(68)) == (
        "dicom without a picture: take it out of the data, or convert it to png with a window where it has one"
    )


def test_a_compression_that_is_not_installed_is_reported(tmp_path):
    pytest.importorskip("pydicom")
    from pydicom.encaps import encapsulate
    from pydicom.uid import JPEGLSLossless

    content = written(hounsfield(), WindowCenter=40, WindowWidth=400, **CT)
    from pydicom import dcmread, dcmwrite

    made = dcmread(io.BytesIO(content))
    made.file_meta.TransferSyntaxUID = JPEGLSLossless
    made.PixelData = encapsulate([b"\xff\xd8\xff\xf7" + bytes(40)])
    made["PixelData"].is_undefined_length = True
    file = io.BytesIO()
    dcmwrite(file, made)
    assert why(tmp_path / "a.dcm", file.getvalue()) == (
        'dicom in a compression that is not read here: pip install "pylibjpeg[libjpeg,openjpeg,rle]"'
    )


def test_a_picture_over_the_limit_is_refused(tmp_path):
    content = written(np.zeros((200, 100), np.uint8))
    (tmp_path / "a.dcm").write_bytes(content)
    with pytest.raises(Undecodable) as caught:
        decode(tmp_path / "a.dcm", reading=Reading(max_pixels=10_000))
    assert caught.value.reason == "too large, more than 0 million pixels: --set check.max_pixels=120M"


def test_without_pydicom_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pydicom", None)
    for label in "ab":
        (tmp_path / "data" / label).mkdir(parents=True)
        (tmp_path / "data" / label / "1.dcm").write_bytes(START + bytes(64))
    images = build_catalog(open_source(str(tmp_path / "data"), {}, tmp_path), check=CheckConfig()).images
    assert set(images["reason"]) == {
        'dicom needs pydicom: convert it to png with the window that counts, or pip install "unfreeze[dicom]"'
    }
