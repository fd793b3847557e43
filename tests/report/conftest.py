"""One synthetic study and its report, made once for all tests here."""

from pathlib import Path

import pytest

from tests.support.synthetic import write_study
from unfreeze.report.page import write_report
from unfreeze.statistics.study_results import read_study_results
from unfreeze.storage.study_dir import StudyDir


@pytest.fixture(scope="session")
def study(tmp_path_factory: pytest.TempPathFactory) -> StudyDir:
    return write_study(tmp_path_factory.mktemp("study"))


@pytest.fixture(scope="session")
def report(study: StudyDir, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_report(read_study_results(study), tmp_path_factory.mktemp("report") / "report.html")
