"""What follows from runs: summaries, comparisons, audits, sanity checks."""
