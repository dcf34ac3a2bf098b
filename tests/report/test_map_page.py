"""The page of a map in a real browser, at the sizes that people have."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from playwright.sync_api import Browser

from fade_lens import LatentMap
from tests.report.browser import Window, chromium, window

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(chromium() is None, reason="no Chromium or Chrome is installed; the page cannot be opened"),
]
HOSTILE = "<b onclick=alert(1)>cats</b> </script> ＆ &amp;"


def made_up_map(n: int) -> LatentMap:
    """Two SAEs; the first latent stands alone, far to the left, and has a hostile description."""
    draw = np.random.default_rng(0)
    x = draw.normal(size=n)
    x[0] = -9
    frame = pd.DataFrame({
        "sae": np.where(np.arange(n) % 4, "wide", "<i>narrow</i>"), "hook": "h", "layer": 1, "width": n, "index": np.arange(n), "x": x, "y": draw.normal(size=n) * (x > -9),
        "cluster": np.where(np.arange(n) < 3, 0, -1), "promoted": "' cat', ' dog'", "description": [HOSTILE, *["owls"] * (n - 1)], "clarity": draw.random(n), "url": "https://www.neuronpedia.org/x/y/0",
    })  # fmt: skip
    clusters = pd.DataFrame({"cluster": [0], "size": [3], "cosine": [0.5], "cosine_random": [0.0], "cosine_p": [0.01], "cosine_q": [0.01]})  # fmt: skip
    return LatentMap(frame, clusters, pd.DataFrame(), ("clarity",))


@pytest.fixture
def browser(chrome: Browser) -> Iterator[Window]:
    with window(chrome) as opened:
        yield opened
        # What a browser without a graphics card says of its own drawing.
        opened.complaints[:] = [said for said in opened.complaints if "GL Driver Message" not in said]


def drawn(browser: Window, path: Path) -> None:
    browser.open(path)
    browser.page.wait_for_function("document.getElementById('plot')._fullLayout?.xaxis?._length > 0")


def hover(browser: Window, latent: int) -> str:
    """What the page says when the pointer is on a latent."""
    where = browser.run(
        f"""(() => {{ const p = document.getElementById('plot'), r = p.getBoundingClientRect(), a = p._fullLayout; const i = {latent};
        return [r.left + a.xaxis._offset + a.xaxis.d2p(data.x[i]), r.top + a.yaxis._offset + a.yaxis.d2p(data.y[i])] }})()"""
    )
    browser.page.mouse.move(where[0] - 3, where[1])
    browser.page.mouse.move(*where, steps=3)
    browser.page.wait_for_function(f"document.getElementById('latent').dataset.latent === '{latent}' && document.querySelector('#latent h3')")  # fmt: skip
    return browser.page.locator("#latent").inner_text()


def test_sixteen_thousand_latents_are_seen_searched_and_coloured(browser: Window, tmp_path: Path) -> None:
    drawn(browser, made_up_map(16_000).to_html(tmp_path / "map.html"))
    said = hover(browser, 0)
    assert "<i>narrow</i> #0" in said and HOSTILE in said and "' cat', ' dog'" in said
    assert browser.run("data.x.length") == 16_000 and browser.run("document.querySelectorAll('#latent b').length") == 0
    browser.page.select_option("#colour", "clarity")
    assert browser.run("document.getElementById('plot').data[0].marker.color[0]") == browser.run("data.colours[0][1][0]")  # fmt: skip
    browser.page.fill("#search", "cats")
    browser.page.wait_for_function("document.getElementById('found').textContent === '1 found'")
    browser.page.fill("#search", "#77")
    browser.page.wait_for_function("document.querySelector('#latent h3').textContent === 'wide #77'")
    browser.page.get_by_role("button", name="0", exact=True).click()
    assert browser.page.locator("#found").inner_text() == "3 latents of cluster 0"
    chosen = browser.run("document.getElementById('plot').data.map(trace => trace.selectedpoints.length)")
    assert chosen == [1, 2]
    assert len(browser.requests) == 1


def test_at_a_hundred_thousand_what_is_said_comes_by_shard(browser: Window, tmp_path: Path) -> None:
    page = made_up_map(100_000).to_html(tmp_path / 'it\'s "100 %" #1?' / "map #1?.html")
    drawn(browser, page)
    assert len(browser.requests) == 1 and page.stat().st_size < 12e6
    assert HOSTILE in hover(browser, 0)
    assert [url.rsplit("/", 1)[1] for url in browser.requests[1:]] == ["0000.js"]
    browser.page.fill("#search", "owls")
    browser.page.wait_for_function("document.getElementById('found').textContent === '99,999 found'")
    browser.page.keyboard.press("Enter")
    browser.page.wait_for_function("document.querySelector('#latent h3').textContent === 'wide #2'")
    assert len(browser.requests) == 51


def test_a_missing_folder_of_texts_is_told(browser: Window, tmp_path: Path) -> None:
    page = made_up_map(20_001).to_html(tmp_path / "map.html")
    page.rename(tmp_path / "moved.html")
    (tmp_path / "map_texts").rename(tmp_path / "gone")
    drawn(browser, tmp_path / "moved.html")
    hover(browser, 0)
    browser.page.wait_for_function("document.getElementById('found').textContent.includes('map_texts')")
    browser.page.fill("#search", "owls")
    browser.page.wait_for_timeout(400)
    assert "map_texts" in browser.page.locator("#found").inner_text()
    browser.complaints[:] = [said for said in browser.complaints if "ERR_FILE_NOT_FOUND" not in said]
