"""What tests of pages share."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser

from tests.report.browser import Window, launched, window


@pytest.fixture(scope="module")
def chrome() -> Iterator[Browser]:
    with launched() as browser:
        yield browser


@pytest.fixture
def browser(chrome: Browser) -> Iterator[Window]:
    with window(chrome) as opened:
        yield opened
