import pytest

from unfreeze.data import scan_cache as states


@pytest.fixture
def settling(monkeypatch):
    """Let files settle fast: Linux keeps times to some milliseconds."""
    monkeypatch.setattr(states, "SETTLED", 0.05)
