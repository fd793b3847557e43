"""The process that runs studies to be killed, and what they give where nobody kills them."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.killer import Killer, make_killer

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def zygote(tmp_path_factory: pytest.TempPathFactory) -> Iterator[subprocess.Popen]:
    zygote = subprocess.Popen(
        [sys.executable, "-m", "tests.support.zygote"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    assert zygote.stdout.readline() == "ready\n"
    make_killer(tmp_path_factory.mktemp("first"), zygote).run("first")  # takes longer, for what it imports
    yield zygote
    zygote.stdin.close()
    zygote.stdout.close()
    zygote.wait(timeout=30)


@pytest.fixture(scope="module")
def killer(tmp_path_factory: pytest.TempPathFactory, zygote: subprocess.Popen) -> Killer:
    return make_killer(tmp_path_factory.mktemp("killed"), zygote)


@pytest.fixture(scope="module")
def whole(killer: Killer) -> tuple[dict, float, int]:
    """What a run that nobody kills gives, its seconds, and its numbered steps."""
    done = killer.run("whole")
    assert done["code"] == 0, killer.log("whole")
    return killer.results("whole"), done["seconds"], killer.steps("whole")
