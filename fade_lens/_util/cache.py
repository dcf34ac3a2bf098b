"""Where what is downloaded or unpacked once is kept."""

import os
from pathlib import Path


def cache_folder() -> Path:
    """Where downloads and unpacked parts are kept: `FADE_LENS_CACHE`, else the user's cache folder."""
    chosen = os.environ.get("FADE_LENS_CACHE")
    base = Path(chosen) if chosen else Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "fade-lens"
    base.mkdir(parents=True, exist_ok=True)
    return base
