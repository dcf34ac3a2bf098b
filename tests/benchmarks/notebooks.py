"""How long the notebooks take with the embedded judge, as a reader runs them.

python -m tests.benchmarks.notebooks [NAME...]
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

from nbclient.exceptions import CellExecutionError

from tests.benchmarks.timing import machine
from tests.notebook_kernel import NOTEBOOKS, Kernel


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(NOTEBOOKS)}; all unless given")
    names = parser.parse_args().names or list(NOTEBOOKS)
    if unknown := sorted(set(names) - set(NOTEBOOKS)):
        parser.error(f"no notebook is called {', '.join(unknown)}; there are {', '.join(NOTEBOOKS)}")
    print(f"{machine()}\n\n| notebook | seconds | |\n|---|--:|---|", flush=True)
    failed = list[CellExecutionError]()
    with tempfile.TemporaryDirectory() as folder, Kernel() as kernel:
        for name in names:
            started, told = time.perf_counter(), ""
            (own := Path(folder) / name).mkdir()
            try:
                kernel.run(NOTEBOOKS[name], own)
            except CellExecutionError as error:
                failed.append(error)
                told = "a cell fails, see below"
            print(f"| `{name}` | {time.perf_counter() - started:.0f} | {told} |", flush=True)
    sys.exit("\n".join(map(str, failed)) or None)


if __name__ == "__main__":
    main()
