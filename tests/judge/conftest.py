"""Settings for the judge's tests: no key of the developer's, no waiting."""

import pytest

from fade_lens.llm import queue


@pytest.fixture(autouse=True)
def quick_and_keyless(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    for name in ("OPENAI_API_KEY", "FADE_LENS_API_KEY", "AZURE_OPENAI_API_KEY", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path_factory.mktemp("work"))  # a .env in the developer's folder is not read
    monkeypatch.setattr(queue, "BACKOFF_SECONDS", 0.01)
