"""One synthetic study, made once for all tests here."""

import pytest

from tests.support.synthetic import write_study
from unfreeze.storage.study_dir import StudyDir


@pytest.fixture(scope="session")
def study(tmp_path_factory: pytest.TempPathFactory) -> StudyDir:
    return write_study(tmp_path_factory.mktemp("study"))
