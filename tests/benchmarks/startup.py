"""How long `import fade_lens` and `fade-lens --help` take, in fresh processes.

python -m tests.benchmarks.startup
"""

import argparse
import statistics
import subprocess
import sys
import time

from tests.benchmarks.timing import Row, machine, table

HELP = "import sys; sys.argv[1:] = ['--help']; from fade_lens.cli import main; main()"
CASES = {
    "`import fade_lens`": ("import fade_lens", 0.5),
    "`fade-lens --help`": (HELP, 1.0),
    "`from fade_lens import Fade` (torch, TransformerLens and SAELens come with it)": (
        "from fade_lens import Fade",
        None,
    ),
}


def seconds(code: str) -> float:
    started = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    rows: list[Row] = []
    for name, (code, most) in CASES.items():
        seconds(code)  # compiles what was not
        found, bare = (statistics.median(seconds(c) for _ in range(arguments.rounds)) for c in (code, "pass"))
        needed = "" if most is None else f"< {most} s"
        rows.append(Row(name, f"the interpreter alone: {bare:.2f} s", f"{found:.2f} s", needed, most and found < most))
    print(f"{machine()}\n\n{table(rows)}")


if __name__ == "__main__":
    main()
