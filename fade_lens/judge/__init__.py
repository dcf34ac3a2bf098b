"""The judge: all input and output with language models that write texts for a concept and rate texts against it."""

from fade_lens.judge.judge import Judge
from fade_lens.judge.prompts import Prompts
from fade_lens.judge.rating import Rating
from fade_lens.judge.writing import Written
from fade_lens.llm.budget import BudgetReached, Estimate, Usage
from fade_lens.llm.transcripts import MemoryTranscripts, Transcripts

__all__ = [
    "BudgetReached",
    "Estimate",
    "Judge",
    "MemoryTranscripts",
    "Prompts",
    "Rating",
    "Transcripts",
    "Usage",
    "Written",
]
