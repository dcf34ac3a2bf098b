"""Which of SAELens' releases work: each is loaded from stand-ins in a hub cache made on the spot, read, encoded, steered.

python -m tests.benchmarks.releases [PATTERN]
"""

import argparse
import contextlib
import io
import logging
import re
import tempfile
import time
import warnings
from collections.abc import Sequence
from pathlib import Path

from sae_lens.loading.pretrained_saes_directory import get_pretrained_saes_directory

from tests.benchmarks.timing import machine
from tests.families import family
from tests.releases import UNLISTED, Published, check, hub_cache, walk


def outcome(sae: Published) -> tuple[str, str]:
    """The kind of model that it ran on, and "works" or why not."""
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            return check(sae).split(",")[0], "works"
    except Exception as error:
        return "", f"{type(error).__name__}: {str(error).strip().splitlines()[0]:.120}"


def family_of(releases: Sequence[str]) -> str:
    """Releases in few words: what their names begin with, and how many they are."""
    if len(releases) < 3:
        return ", ".join(releases)
    low, high = min(releases), max(releases)
    shared = next((i for i, (a, b) in enumerate(zip(low, high, strict=False)) if a != b), len(low))
    return f"{low[:shared].rstrip('-_')}… ({len(releases)} releases)"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pattern", nargs="?", default="", help="only releases in whose name this is found")
    pattern = parser.parse_args().pattern
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    saes = [sae for sae in (*walk(), UNLISTED) if re.search(pattern, sae.release)]
    started = time.perf_counter()
    rows: dict[tuple[str, ...], list[Published]] = {}
    with tempfile.TemporaryDirectory() as folder, hub_cache(Path(folder), saes):
        for sae in saes:
            listed = "" if sae is not UNLISTED else " (cross-layer, in no release)"
            rows.setdefault((sae.loader, family(sae.model)[0] + listed, *outcome(sae)), []).append(sae)
    directory = get_pretrained_saes_directory()
    print(f"{machine()}; {time.perf_counter() - started:.0f} s\n")
    print("| releases | SAEs | loader | model | architecture at hook | runs as | |")
    print("|---|--:|---|---|---|---|---|")
    for (loader, model, kind, found), members in rows.items():
        releases = list(dict.fromkeys(sae.release for sae in members))
        count = sum(len(directory[name].saes_map) for name in releases if name in directory)
        hooks = {
            sae.architecture: sorted({m.hook for m in members if m.architecture == sae.architecture}) for sae in members
        }
        reads = "; ".join(f"{architecture} at {', '.join(names)}" for architecture, names in hooks.items())
        print(f"| {family_of(releases)} | {count:,} | {loader} | {model} | {reads} | {kind} | {found} |")
    working = {sae.release for key, members in rows.items() for sae in members if key[-1] == "works"}
    failing = {sae.release for key, members in rows.items() for sae in members if key[-1] != "works"}
    print(f"\n{len((working - failing) & set(directory))} of {len(directory)} releases work.")


if __name__ == "__main__":
    main()
