"""Help and version start fast: heavy modules are imported only by commands that need them."""

import json
import subprocess
import sys

import pytest

from tests.support.commands import STUDY

COMMANDS = ["demo", "init", "check", "plan", "run", "report", "describe", "cache"]
HEAVY = {"torch", "timm", "torchvision", "pandas", "numpy", "scipy", "sklearn", "ruamel", "PIL", "plotly", "rich"}
PROGRAM = """
import json, sys
from unfreeze.cli import main
code = main(sys.argv[1:])
print(json.dumps([code, sorted({name.partition(".")[0] for name in sys.modules})]), file=sys.stderr)
"""


def start(*arguments: str) -> tuple[int, str, set[str]]:
    done = subprocess.run([sys.executable, "-c", PROGRAM, *arguments], capture_output=True, text=True, check=True)
    code, modules = json.loads(done.stderr.splitlines()[-1])
    return code, done.stdout, set(modules)


def test_help_names_every_command_and_imports_nothing_heavy():
    code, said, modules = start("--help")
    assert code == 0
    assert all(f"  {command} " in said for command in COMMANDS)
    assert "..." not in said.split("Commands:")[1]  # no summary is cut off
    assert modules & HEAVY == set()
    assert "pydantic" not in modules  # imported by typer for some types of options, which takes 0.1 s


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_a_command_imports_nothing_heavy(command):
    code, said, modules = start(command, "--help")
    assert code == 0
    assert f"Usage: unfreeze {command}" in said
    assert modules & HEAVY == set()


def test_version_imports_nothing_heavy():
    code, said, modules = start("--version")
    assert (code, said) == (0, "unfreeze 0.2.0\n")
    assert modules & HEAVY == set()


def test_an_unknown_option(unfreeze):
    code, said, complaint = unfreeze("run", "photos", "--sets", "epochs=1")
    assert (code, said) == (2, "")
    assert "No such option: --sets" in complaint


@pytest.mark.parametrize("command", ["plan", "run"])
def test_a_misspelt_optimiser_is_refused_before_torch_is_imported(tmp_path, command):
    study = tmp_path / "study.yaml"
    study.write_text(STUDY.replace("name: sgd", "name: sdg"), encoding="utf-8")
    code, said, modules = start(command, str(study))
    assert (code, said) == (2, "")
    assert modules & {"torch", "torchvision", "timm", "openvino"} == set()


def test_the_script_is_installed():
    from importlib.metadata import entry_points

    (script,) = entry_points(group="console_scripts", name="unfreeze")
    assert script.value == "unfreeze.cli:main"
