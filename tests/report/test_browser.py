"""The report in a real browser: a recipe opens, a curve is toggled, nothing leaves the page, phones can read it."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as play:
        opened = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()


def opened(browser: Any, report: Path, width: int) -> tuple[Any, list[str], list[str]]:
    page = browser.new_page(viewport={"width": width, "height": 800})
    errors: list[str] = []
    requests: list[str] = []
    page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("request", lambda request: requests.append(request.url))
    page.goto(report.as_uri())
    return page, errors, requests  # both go on growing


def test_a_field_opens_and_the_legend_hides_its_curves(browser: Any, report: Path) -> None:
    page, errors, requests = opened(browser, report, 1280)
    page.locator("button.open.recommended").press("Enter")
    plot = page.locator("dialog[open] .plot")
    plot.locator(".legend .traces").first.wait_for()
    shown = "box => box.data.filter(trace => trace.legendgroup === 'train' && trace.visible !== 'legendonly').length"
    assert plot.evaluate(shown) > 0
    plot.locator(".legendtoggle").first.click()
    page.wait_for_function("() => document.querySelector('dialog[open] .plot').data[0].visible === 'legendonly'")
    assert plot.evaluate(shown) == 0
    page.keyboard.press("Escape")
    assert page.locator("dialog[open]").count() == 0
    assert errors == []
    assert [url for url in requests if not url.startswith(("data:", "blob:"))] == [report.as_uri()]


def test_a_phone_scrolls_downwards_only(browser: Any, report: Path) -> None:
    page, errors, _ = opened(browser, report, 400)
    assert page.evaluate("document.documentElement.scrollWidth") <= 400
    assert errors == []
