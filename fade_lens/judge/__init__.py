"""The judge: all input and output with language models that write texts for a concept, rate texts against it, and answer free questions.

What a judge costs, and how that is kept down:

- `Fade.estimate` (`--dry-run`) tells calls, tokens and price before anything is spent; `max_cost` and `max_calls` stop a run cleanly, and the same run
  with a higher limit goes on. Prices are those of the package `genai-prices` unless `price` is given; a cost that is not known is None and never 0.
- Texts are rated in rounds as long as the intervals ask for, and no longer once they are narrow enough (`interval_width`; None rates everything).
  Continuations are rated at every factor for the first prompts, then at the best factor alone.
- `batch=True` asks through OpenAI's Batch API at half the price; a run that is interrupted meanwhile is collected by a later one.
- Every answer is on disk before it is used. It is found again by all that determines it, so nothing is asked twice; `transcripts` shares the
  answers of another run.

Servers differ. What one cannot take (a system message, a JSON schema, twenty log-probabilities, a parameter, a long request) is left out or asked for in
smaller parts, and that is remembered; where nothing helps the server's own words are shown (`fade_lens.llm.capabilities`). A judge that fails 30 % of
requests in eleven ways gives the same table as a healthy one (`tests/judge/test_whole_run.py`), and a run that is killed at 20 random moments asks nothing
twice (`tests/runs/test_kill.py`).

A judge on one's own machine or network is known by its model: the same model on another port, host or path goes on in the same run; `name` tells two
apart, or says that two addresses are one.

How far to trust it (`fade_lens.judge.reliability`): ratings repeated, a second judge, or a gold set give Cohen's kappa, sensitivity and specificity.
"""

from fade_lens.judge.judge import Judge as Judge
from fade_lens.judge.prompts import Prompts as Prompts
from fade_lens.judge.rating import Rating as Rating
from fade_lens.judge.writing import Written as Written
from fade_lens.llm.budget import BudgetReached as BudgetReached
from fade_lens.llm.budget import Estimate as Estimate
from fade_lens.llm.budget import Usage as Usage
from fade_lens.llm.transcripts import MemoryTranscripts as MemoryTranscripts
from fade_lens.llm.transcripts import Transcripts as Transcripts
