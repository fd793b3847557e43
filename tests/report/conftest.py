"""The report of the synthetic study, written once for all tests here."""

from pathlib import Path

import pytest

from tests.support.synthetic import shared_results
from unfreeze.report.page import write_report


@pytest.fixture(scope="session")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_report(shared_results(), tmp_path_factory.mktemp("report") / "report.html")
