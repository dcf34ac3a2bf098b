"""The fake Neuronpedia, and a cache of its own for every test."""

import pytest

from tests.neuronpedia.fake_site import FakeSite


@pytest.fixture
def site(tmp_path, monkeypatch):
    monkeypatch.setenv("FADE_LENS_CACHE", str(tmp_path / "cache"))
    with FakeSite() as server:
        monkeypatch.setenv("FADE_LENS_NEURONPEDIA_SITE", server.url)
        monkeypatch.setenv("FADE_LENS_NEURONPEDIA_BUCKET", server.url)
        yield server
