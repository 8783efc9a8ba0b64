"""One Chromium for all tests of pages, and pages that must stay silent on the network."""

from collections.abc import Iterator
from contextlib import closing

import pytest
from playwright.sync_api import Browser, Error, Page, sync_playwright

from tools.slides import launch


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        try:
            browser = launch(playwright)
        except Error as error:
            pytest.skip(f"pages are not tested: {error.message.strip().splitlines()[0]}")
        yield browser


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
