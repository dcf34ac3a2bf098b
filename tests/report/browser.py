"""A headless Chromium for tests, driven by Playwright."""

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Page, sync_playwright

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")


def chromium() -> str | None:
    """The path of a Chromium or Chrome: an installed one, else the one that `playwright install chromium` fetched."""
    if path := next((path for name in NAMES if (path := shutil.which(name))), None):
        return path
    with sync_playwright() as playwright:
        path = playwright.chromium.executable_path
    return path if Path(path).is_file() else None


@contextmanager
def launched() -> Iterator[Browser]:
    """A running browser.

    Raises:
        FileNotFoundError: none is installed.
    """
    if (path := chromium()) is None:
        raise FileNotFoundError("no Chromium or Chrome is installed; `playwright install chromium` fetches one")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path)
        yield browser
        browser.close()


@dataclass
class Window:
    """One page; everything it logs, throws or asks of a network is kept in `complaints` and `requests`."""

    page: Page
    complaints: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def open(self, path: Path, fragment: str = "") -> float:
        """Load a file; the seconds until it was there and drawn."""
        started = time.perf_counter()
        self.page.goto(path.resolve().as_uri() + fragment)
        self.run("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => done(1))))")
        return time.perf_counter() - started

    def run(self, expression: str) -> Any:
        """The value of a JavaScript expression in the page."""
        return self.page.evaluate(expression)

    def press(self, key: str, times: int = 1) -> None:
        """Press a key, as a person would."""
        for _ in range(times):
            self.page.keyboard.press(key)


@contextmanager
def window(
    browser: Browser, width: int = 1280, height: int = 900, *, dark: bool = False, phone: bool = False
) -> Iterator[Window]:
    """A page of its own, as a person with that screen and colour scheme has it; at its end nothing may have complained."""
    context = browser.new_context(
        viewport={"width": width, "height": height},
        color_scheme="dark" if dark else "light",
        is_mobile=phone,
        has_touch=phone,
    )
    opened = Window(context.new_page())
    opened.page.set_default_timeout(60_000)  # on a busy machine
    opened.page.on("console", lambda message: opened.complaints.append(message.text))
    opened.page.on("pageerror", lambda error: opened.complaints.append(str(error)))
    opened.page.on("request", lambda request: opened.requests.append(request.url))
    yield opened
    context.close()
    assert opened.complaints == []
    assert all(url.startswith("file:") for url in opened.requests)
