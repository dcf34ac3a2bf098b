"""Samples that several tests and benchmarks draw."""

from typing import Any

from fade_lens.data.sampling import Sample, design


def stratified(values: Any, n: int, rng: Any, **options: Any) -> Sample:
    """The whole of a design."""
    chosen = design(values, n, rng, **options)
    return chosen.first(len(chosen))
