"""The synthetic study that tests here share and only read."""

import pytest

from tests.support.synthetic import shared_study
from unfreeze.storage.study_dir import StudyDir


@pytest.fixture(scope="session")
def study() -> StudyDir:
    return shared_study()
