"""Memory that a step has freed serves the next one, and the user's environment goes first."""

import os
import subprocess
import sys

import pytest

STEPS = """
import resource
from unfreeze.cli.tuning import tune_process
{tune}
import torch

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

def step():
    return torch.ones(16 << 20) + 1  # two tensors of 64 MB

step()
before = faults()
for _ in range(8):
    step()
print(faults() - before)
"""


def faults(tune: str) -> int:
    code = STEPS.format(tune=tune)
    clean = {key: value for key, value in os.environ.items() if key != "THP_MEM_ALLOC_ENABLE"}
    found = subprocess.run([sys.executable, "-c", code], env=clean, capture_output=True, text=True, check=True)
    return int(found.stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's allocator")
def test_large_tensors_reuse_memory() -> None:
    assert faults("tune_process()") < faults("") / 10


@pytest.mark.parametrize(("name", "value"), [("OMP_WAIT_POLICY", "PASSIVE"), ("THP_MEM_ALLOC_ENABLE", "1")])
def test_what_the_environment_says_stays(name: str, value: str) -> None:
    code = f"import os; from unfreeze.cli.tuning import tune_process; tune_process(); print(os.environ[{name!r}])"
    clean = {key: given for key, given in os.environ.items() if key != name}
    for given, found in (({}, value), ({name: "x"}, "x")):
        command = [sys.executable, "-c", code]
        said = subprocess.run(command, env=clean | given, capture_output=True, text=True, check=True)
        assert said.stdout.strip() == found
