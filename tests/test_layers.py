"""The package's shape: imports point one way, light parts stay light, and nothing unsafe is in it."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "src" / "unfreeze"
FLOORS = (
    {"errors", "text", "seeds", "events", "registry", "metrics"},
    {"config"},
    {"storage"},
    {"slots"},
    {"data", "model", "statistics"},
    {"inputs"},
    {"activations"},
    {"train"},
    {"explain", "report"},
    {"study"},
    {"cli", "worker", "__init__"},
)
"""The parts of the package from the ground up: a part imports itself and what lies on lower floors."""
NO_TORCH = (
    "errors",
    "text",
    "seeds",
    "events",
    "registry",
    "metrics",
    "config",
    "storage",
    "slots",
    "statistics",
    "report",
)
HEAVY = ("torch", "torchvision", "timm", "openvino")
NEVER_IMPORTED = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal", "yaml"}
NEVER_CALLED = {
    "eval", "exec", "compile", "__import__", "builtins.eval", "builtins.exec", "builtins.compile", "os.system",
    "os.popen", "torch.jit.load", "torch.hub.load", "torch.package.PackageImporter",
}  # fmt: skip
NEVER_NAMED = {"read_pickle", "to_pickle", "extractall", "unsafe_load", "full_load"}
NEVER_READ = {"eval", "exec", "__import__"}
"""Names of Python's own, even where they are not called."""
NEVER_TRUE = ("allow_pickle", "trust_remote_code", "shell")


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


LISTENERS = {"socket", "socketserver", "http", "xmlrpc", "wsgiref", "asyncio", "ssl"}


def test_nothing_listens() -> None:
    """There is no server; what speaks to the hub is huggingface-hub and datasets, which ask and do not answer."""
    for path in PACKAGE.rglob("*.py"):
        found = {name.split(".")[0] for name in imports(path)} & LISTENERS
        assert not found, f"{path.relative_to(PACKAGE)} imports {', '.join(sorted(found))}"


def below(part: str) -> set[str]:
    """Return the parts on the floors under that of a part; on the lowest floor, its neighbours."""
    floor = next(number for number, parts in enumerate(FLOORS) if part in parts)
    return set().union(*FLOORS[: floor or 1])


PARTS = sorted({path.relative_to(PACKAGE).parts[0].removesuffix(".py") for path in PACKAGE.rglob("*.py")})


@pytest.mark.parametrize("part", PARTS)
def test_imports_point_one_way(part: str) -> None:
    for path in modules(part):
        inside = [name.split(".")[1] for name in imports(path) if name.startswith("unfreeze.")]
        wrong = set(inside) - below(part) - {part}
        assert not wrong, f"{path.relative_to(PACKAGE)} imports {', '.join(sorted(wrong))}"


def test_light_parts_import_nothing_heavy() -> None:
    names = [name_of(path) for part in NO_TORCH for path in modules(part)]
    code = f"import importlib, sys\nfor name in {names!r}: importlib.import_module(name)\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert set(names) <= set(done.stdout.split())
    assert not set(HEAVY) & set(done.stdout.split())


def test_registries_import_nothing_heavy() -> None:
    """Names are checked against them before anything is built."""
    code = "import sys, unfreeze.study.registries, unfreeze.activations.engines\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not set(HEAVY) & set(done.stdout.split())


def test_the_light_parts_name_nothing_heavy_even_inside_functions() -> None:
    for part in NO_TORCH:
        for path in modules(part):
            assert not set(HEAVY) & {name.split(".")[0] for name in imports(path)}, path


def unsafe(tree: ast.AST) -> Iterator[str]:
    """Say what in a module may run what it reads, checks input where checks can be switched off, or hides an error."""
    for node in ast.walk(tree):
        found = []
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names]
            whole = names if isinstance(node, ast.Import) else [f"{node.module}.{name}" for name in names]
            found += [name for name in whole if name.split(".")[0] in NEVER_IMPORTED or name in NEVER_CALLED]
            found += [name for name in whole if name in ("torch.load", "numpy.load", "torch.serialization.load")]
        if isinstance(node, ast.Assert):
            found.append("assert checks no input")
        if isinstance(node, ast.ExceptHandler) and node.type is None:
            found.append("a bare except")
        if isinstance(node, ast.Attribute) and node.attr in NEVER_NAMED:
            found.append(node.attr)
        if isinstance(node, ast.Name) and node.id in NEVER_READ:
            found.append(node.id)
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            given = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
            found += [called] if called in NEVER_CALLED else []
            found += ["unpickles"] if called == "torch.load" and given.get("weights_only") != "True" else []
            found += ["may unpickle"] if called in ("np.load", "numpy.load") and len(node.args) > 2 else []
            found += ["makes objects of YAML"] if called == "YAML" and given.get("typ") != "'safe'" else []
            found += [f"{name}={given[name]}" for name in NEVER_TRUE if given.get(name, "False") != "False"]
            found += ["what is given cannot be told"] if called in ("torch.load", "np.load") and None in given else []
        for what in found:
            yield f"line {getattr(node, 'lineno', 0)}: {what}"


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=name_of)
def test_nothing_unsafe_is_in_the_package(path: Path) -> None:
    assert list(unsafe(ast.parse(path.read_text(encoding="utf-8")))) == []


@pytest.mark.parametrize(
    "code",
    [
        "import pickle", "from pickle import loads", "import joblib", "import yaml", "from yaml import load",
        "import marshal", "eval('1')", "exec('1')", "run = eval", "compile('1', '', 'exec')", "__import__('x')",
        "import builtins; builtins.eval('1')", "import os; os.system('x')", "from os import system",
        "torch.load(path)", "torch.load(path, weights_only=False)", "torch.load(path, weights_only=chosen)",
        "torch.load(path, **options)", "from torch import load", "torch.jit.load(path)", "torch.hub.load('a', 'b')",
        "np.load(path, allow_pickle=True)", "np.load(path, None, True)", "np.load(path, **options)",
        "from numpy import load", "pd.read_pickle(path)", "archive.extractall(folder)", "YAML(typ='unsafe')", "YAML()",
        "subprocess.run(text, shell=True)", "AutoModel.from_pretrained(name, trust_remote_code=True)", "assert given",
        "try:\n    x()\nexcept:\n    pass",
    ],
)  # fmt: skip
def test_what_is_unsafe_is_found(code: str) -> None:
    assert list(unsafe(ast.parse(code)))


@pytest.mark.parametrize(
    "code",
    [
        "network.eval()", "re.compile('x')", "torch.load(path, weights_only=True)", "np.load(path)",
        "json.load(file)", "YAML(typ='safe', pure=True)", "subprocess.run(['x'], shell=False)",
    ],
)  # fmt: skip
def test_what_is_safe_is_not(code: str) -> None:
    assert list(unsafe(ast.parse(code))) == []


def test_no_test_module_is_imported_by_another() -> None:
    """What tests share lies in tests/support, and what pytest hands to them in conftest.py."""
    for path in (PACKAGE.parents[1] / "tests").rglob("*.py"):
        shared = [name for name in imports(path) if name.startswith("tests.") and name.split(".")[1] != "support"]
        assert not shared, f"{path} imports {', '.join(shared)}"


def test_every_part_has_its_floor() -> None:
    assert set(PARTS) == set().union(*FLOORS)
