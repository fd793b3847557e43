"""The package's shape: imports point one way, light parts stay light, and nothing unsafe is in it."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "src" / "unfreeze"
BOTTOM = {"errors", "streams", "metrics"}
MAY_IMPORT = {  # a part may always import itself
    "errors": set(),
    "streams": set(),
    "metrics": set(),
    "tensors": set(),
    "store": {"errors", "streams", "tensors"},
    "config": {"errors"},
    "data": BOTTOM | {"config", "store"},
    "model": BOTTOM | {"config", "store"},
    "reuse": BOTTOM | {"config", "store", "data", "model"},
    "train": BOTTOM | {"config", "store", "data", "model"},
    "results": {"errors", "streams", "metrics", "config", "store"},
    "study": BOTTOM | {"config", "store", "data", "model", "reuse", "train", "results"},
    "cli": BOTTOM | {"config", "store", "data", "model", "reuse", "train", "results", "study"},
    "__init__": {"study"},
    "__main__": {"cli"},
}
NO_TORCH = ("errors", "streams", "metrics", "tensors", "store", "config", "results")
HEAVY = ("torch", "torchvision", "timm", "ncnn", "openvino", "pnnx")
NEVER_IMPORTED = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal", "yaml"}
NEVER_CALLED = {
    "eval", "exec", "compile", "__import__", "os.system", "os.popen", "torch.jit.load", "torch.hub.load",
    "torch.package.PackageImporter",
}  # fmt: skip
NEVER_NAMED = {"read_pickle", "to_pickle", "extractall", "unsafe_load", "full_load"}


def modules(part: str) -> list[Path]:
    single = PACKAGE / f"{part}.py"
    return [single] if single.is_file() else sorted((PACKAGE / part).rglob("*.py"))


def name_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path: Path) -> list[str]:
    """Return the modules that a file imports anywhere in it, in full; ``from a import b`` counts as a.b."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}, line {node.lineno}: imports name their module in full"
            found += [f"{node.module}.{alias.name}" for alias in node.names]
    return found


PARTS = sorted({path.relative_to(PACKAGE).parts[0].removesuffix(".py") for path in PACKAGE.rglob("*.py")})


@pytest.mark.parametrize("part", PARTS)
def test_imports_point_one_way(part: str) -> None:
    for path in modules(part):
        inside = [name.split(".")[1] for name in imports(path) if name.startswith("unfreeze.")]
        wrong = set(inside) - MAY_IMPORT[part] - {part}
        assert not wrong, f"{path.relative_to(PACKAGE)} imports {', '.join(sorted(wrong))}"


def test_light_parts_import_nothing_heavy() -> None:
    names = [name_of(path) for part in NO_TORCH for path in modules(part)]
    code = f"import importlib, sys\nfor name in {names!r}: importlib.import_module(name)\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert set(names) <= set(done.stdout.split())
    assert not set(HEAVY) & set(done.stdout.split())


def test_the_light_parts_name_nothing_heavy_even_inside_functions() -> None:
    for part in NO_TORCH:
        for path in modules(part):
            assert not set(HEAVY) & {name.split(".")[0] for name in imports(path)}, path


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=name_of)
def test_nothing_unsafe_is_in_the_package(path: Path) -> None:
    assert not NEVER_IMPORTED & {name.split(".")[0] for name in imports(path)}
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        where = f"{path.relative_to(PACKAGE)}, line {getattr(node, 'lineno', 0)}"
        assert not isinstance(node, ast.Assert), f"{where}: assert checks no input"
        if isinstance(node, ast.ExceptHandler):
            assert node.type is not None, f"{where}: a bare except"
        if isinstance(node, ast.Attribute):
            assert node.attr not in NEVER_NAMED, where
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            given = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
            assert called not in NEVER_CALLED, f"{where}: {called}"
            assert called != "torch.load" or given.get("weights_only") == "True", f"{where}: unpickles"
            assert given.get("allow_pickle", "False") == "False", f"{where}: unpickles"
            assert called != "np.load" or len(node.args) < 3, f"{where}: may unpickle"
            assert given.get("trust_remote_code", "False") == "False", f"{where}: runs what it fetches"
            assert given.get("shell", "False") == "False", f"{where}: runs a shell"


def test_every_part_has_its_rule() -> None:
    assert set(PARTS) <= set(MAY_IMPORT)
