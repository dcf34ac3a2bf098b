"""Benchmarks that need a machine of their own are tried small."""

import subprocess
import sys


def test_the_benchmark_of_gpus_runs_small_on_a_cpu() -> None:
    command = [sys.executable, "-m", "tests.benchmarks.gpu", "--small", "--device", "cpu"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    tables = [line for line in done.stdout.splitlines() if line.startswith("| ---")]
    assert len(tables) == 5 and done.stdout.count("56 of 56 texts (100.00% of tokens) |") == 8
