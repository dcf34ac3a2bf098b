"""The judge: all input and output with language models that write texts for a concept, rate texts against it, and answer free questions."""

from fade_lens.judge.judge import Judge as Judge
from fade_lens.judge.prompts import Prompts as Prompts
from fade_lens.judge.rating import Rating as Rating
from fade_lens.judge.writing import Written as Written
from fade_lens.llm.budget import BudgetReached as BudgetReached
from fade_lens.llm.budget import Estimate as Estimate
from fade_lens.llm.budget import Usage as Usage
from fade_lens.llm.transcripts import MemoryTranscripts as MemoryTranscripts
from fade_lens.llm.transcripts import Transcripts as Transcripts
