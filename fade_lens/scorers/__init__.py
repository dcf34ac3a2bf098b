"""Scorers: from a subject, descriptions and a judge to scores with the evidence behind them.

| scorer | asks | by chance | calls a description |
|---|---|---|---|
| `fade` | does written text activate the feature, does natural text, does nothing else, does steering write it (`fade_lens.metrics`) | 0; Purity: the prevalence | about 20 |
| `detection` | does the description tell texts on which the feature fires from silent ones? | 0.5 | 10 |
| `fuzzing` | does it tell marks on the tokens at which the feature fires from marks on others? | 0.5 | 10 |
| `neighbours` | does it tell the feature from the latents nearest to it? | 0.5 | 6 |
| `simulation` | does it say at which tokens the feature fires, and how strongly? | 0 | 40; none with `simulation_model`, a local Hugging Face model |
| `intruder` | have the feature's texts anything in common? (of a feature, not a description) | 0.2 | 20 a feature |
| `embedding` | are the feature's texts nearer in meaning to the description? (extra `similarity`) | 0.5 | 0 |

Calls are at ten texts a request; a judge that rates singly is asked once a text. Each score has an interval, and counts what the judge left unanswered.

Of a description with rules each rule is tested alone, and costs what a description does; the further scorers join them, FADE adds Clarity and
Responsiveness of each, which tell the true rule from the false one (`results.rules`; `score_rules=False`: not).

The evaluators of FADE's scores can each be used alone on a `Subject(model, sae_or_hook, corpus, indices)` and a `Judge`.
"""

from fade_lens.scorers.clarity import ClarityEvaluator as ClarityEvaluator
from fade_lens.scorers.faithfulness import FaithfulnessEvaluator as FaithfulnessEvaluator
from fade_lens.scorers.ratings import RatingEvaluator as RatingEvaluator
