"""The judge: all input and output with language models that write texts for a concept and rate texts against it."""

from fade_lens.judge.asking import Rating, Written
from fade_lens.judge.judge import Judge
from fade_lens.llm.budget import BudgetReached, Estimate, Usage
from fade_lens.llm.transcripts import MemoryTranscripts, Transcripts

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
