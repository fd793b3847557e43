"""Leave out the report of studies, except where a test reads it."""

import pytest


@pytest.fixture
def with_report() -> None:
    """Let studies end as their users' do: with pictures of the best model and a report."""


@pytest.fixture(autouse=True)
def _without_report(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Skip the pictures of the best model and the report: most of a tiny study's time, and no number needs them."""
    if "with_report" not in request.fixturenames:
        monkeypatch.setattr("unfreeze.study.api.write_report", lambda evidence, path=None: None)
        monkeypatch.setattr("unfreeze.study.run.explain", lambda *given: None)
