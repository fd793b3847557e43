"""Process settings: a step reuses freed memory, and the user's environment takes precedence."""

import os
import subprocess
import sys

import pytest

STEPS = """
import resource
from unfreeze.cli.tuning import tune_process
tune_process()
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


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's allocator")
def test_large_tensors_reuse_memory() -> None:
    clean = {key: value for key, value in os.environ.items() if key != "THP_MEM_ALLOC_ENABLE"}
    done = subprocess.run([sys.executable, "-c", STEPS], env=clean, capture_output=True, text=True, check=True)
    pages = 8 * 2 * (64 << 20) // os.sysconf("SC_PAGE_SIZE")  # each a fault where no memory is reused
    assert int(done.stdout) < pages / 10


@pytest.mark.parametrize(("name", "value"), [("OMP_WAIT_POLICY", "PASSIVE"), ("THP_MEM_ALLOC_ENABLE", "1")])
def test_the_environment_takes_precedence(name: str, value: str) -> None:
    code = f"import os; from unfreeze.cli.tuning import tune_process; tune_process(); print(os.environ[{name!r}])"
    clean = {key: given for key, given in os.environ.items() if key != name}
    for given, found in (({}, value), ({name: "x"}, "x")):
        command = [sys.executable, "-c", code]
        said = subprocess.run(command, env=clean | given, capture_output=True, text=True, check=True)
        assert said.stdout.strip() == found
