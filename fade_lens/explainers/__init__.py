"""Explainers: from the evidence of a feature to a description, or to the reason why there is none.

| explainer | shows the model | calls a feature |
|---|---|---|
| `one-shot` | windows of all strengths, marked; `showing=` has ARENA's, SAEBench's, Delphi's and Neuronpedia's ways, and `"small"` for small models | 1 |
| `contrastive` | beside them windows of the hardest texts on which the feature is silent (some found by meaning: extra `similarity`) | 1 |
| `structured` | the same as `one-shot`, and asks for rules with strengths | 1 |
| `tree` | rules revised where they fail, on texts kept for that, and chosen on others; `tree_written=24` adds texts that the judge writes for the rules and that leave the feature silent | at most 60, where the judge takes several texts at once |
| `meanings` | windows of each cluster of contexts by itself, of as many clusters as held-out windows tell apart (extra `similarity`); a rule each | 1 a meaning, at most 5 |
| `output` | tokens that the feature promotes, by the logit lens and by steering, and no text | 1 |
| `patchscopes` | an instruction-tuned subject its own direction in place of a word; texts decide which answer holds | at most 1 |
| `tfidf` | nothing to any model: the words that set its texts apart; the floor of every table | 0 |

Descriptions are scored on texts that no explainer saw (`fade_lens.evidence`). What an explainer cannot describe has a reason and is no failure of the run.

A file with a subclass of `fade_lens.explainers.base.Explainer` under `@explainer("name")` is all that a new one takes.
"""
