"""What tests of pages share."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser

from tests.report.browser import launched


@pytest.fixture(scope="module")
def chrome() -> Iterator[Browser]:
    with launched() as browser:
        yield browser
