"""The judge: all input and output with language models that write texts for a concept and rate texts against it."""

from fade_lens.judge.asking import Rating, Written
from fade_lens.judge.client import Judge
from fade_lens.judge.transcripts import MemoryTranscripts, Transcripts
from fade_lens.judge.usage import BudgetReached, Estimate, Usage

__all__ = [
    "BudgetReached",
    "Estimate",
    "Judge",
    "MemoryTranscripts",
    "Rating",
    "Transcripts",
    "Usage",
    "Written",
]
