"""Each claim of SECURITY.md names its tests."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_every_claim_links_tests_that_are_there() -> None:
    text = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
    claims = [line for line in text.splitlines() if line.startswith("| ") and not line.startswith(("| ---", "| claim"))]
    assert len(claims) >= 6
    for claim in claims:
        links = re.findall(r"\]\((tests/[^)]+)\)", claim)
        assert links, claim
        for link in links:
            assert "def test_" in (ROOT / link).read_text(encoding="utf-8"), link
