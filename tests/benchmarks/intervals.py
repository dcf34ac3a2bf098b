"""Seconds a metric takes, its interval of 2,000 replicates included: 500 rated texts, 30 written against 3,500 natural, 50 prompts.

python -m tests.benchmarks.intervals
"""

import time

import numpy as np

from fade_lens.metrics.fade import clarity, purity, responsiveness
from fade_lens.metrics.faithfulness import faithfulness
from fade_lens.metrics.intervals import REPLICATES
from tests.benchmarks.timing import Row, machine, table

NEEDED = 0.5
ROUNDS = 10


def main() -> None:
    random = np.random.default_rng(0)
    activations = np.where(random.random(500) < 0.4, random.gamma(2, 3, 500), 0.0)
    ratings = np.where((activations > 4) & (random.random(500) < 0.8), 2, 0)
    weights = np.where(activations > 0, 1.0, 30.0)
    synthetic = random.gamma(4, 3, 30)
    natural = np.where(random.random(3500) < 0.05, random.gamma(2, 3, 3500), 0.0)
    continued = {factor: np.where(random.random(50) < factor / 8, 2, 0) for factor in (0.0, 0.5, 1.0, 1.5, 2.0)}
    work = {
        "Responsiveness": lambda: responsiveness(activations, ratings, weights),
        "Purity": lambda: purity(activations, ratings, weights),
        "Clarity": lambda: clarity(synthetic, natural),
        "Faithfulness": lambda: faithfulness(continued),
    }
    rows: list[Row] = []
    for name, run in work.items():
        run()
        times: list[float] = []
        for _ in range(ROUNDS):
            started = time.perf_counter()
            run()
            times.append(time.perf_counter() - started)
        found = float(np.median(times))
        rows.append(Row(name, "", f"{1000 * found:.0f} ms", f"at most {1000 * NEEDED:.0f} ms", found <= NEEDED))
    print(f"Intervals of {REPLICATES:,} replicates; {machine()}\n\n{table(rows)}")


if __name__ == "__main__":
    main()
