"""A real browser for the tests of pages: the Chromium or Chrome that is installed."""

from collections.abc import Iterator
from contextlib import closing

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from tools.slides import find_browser


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One browser for a file of tests; Playwright's event loop must end before others begin."""
    if not (path := find_browser()):
        pytest.skip("no Chromium or Chrome found: install one, or name it in COURSE_BROWSER")
    with sync_playwright() as playwright:
        yield playwright.chromium.launch(executable_path=path)


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """An empty page of 1280 x 720; the test fails if it asks the network or logs an error."""
    complaints = []
    with closing(browser.new_context(viewport={"width": 1280, "height": 720})) as context:
        page = context.new_page()
        page.on("request", lambda r: r.url.startswith("http") and complaints.append(r.url))
        page.on("console", lambda m: m.type == "error" and complaints.append(m.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        yield page
    assert complaints == []
