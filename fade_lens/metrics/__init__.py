"""Pure functions from arrays to values with intervals: FADE's four scores, those of neighbouring scorers, differences of means.

`a(x)` is a feature's activation of largest magnitude over a text's tokens. Special tokens, padding and massive-activation outliers never count.

| score | rests on | value | range |
|---|---|---|---|
| Clarity | texts that the judge writes for the concept, against the corpus | Gini = 2·AUROC − 1 of `a` | −1 … 1 |
| Responsiveness | natural texts that the judge rates 2 (clear), against those it rates 0 (absent) | Gini of `a` | −1 … 1 |
| Purity | the same rated texts | average precision; by chance the prevalence, which is given beside it | 0 … 1 |
| Faithfulness | continuations of natural beginnings, steered by `factor · reference · W_dec` at every position | (R − R₀) / (1 − R₀); R: share rated 2 at the best factor, R₀: unsteered | 0 … 1 |

What differs from the reference implementation (FADE, Puri et al. 2025), and why:

- **Signed.** The reference takes |Gini|, so that a feature which the concept *silences* scores 1. Here it scores −1.
- **Weighted.** Rated texts are drawn more often where the feature fires. Each carries its inclusion probability, so Responsiveness and Purity are
  estimates for the corpus (`fade_lens.data.sampling.design`).
- **Cross-fitted.** The best steering factor is chosen on half of the prompts and measured on the other half, for a maximum over noisy factors is
  biased upwards. The reference's maximum stands in `details`. Prompts beyond the first are rated at the factor that the first ones chose, and need
  no halving.
- **Undefined is a value.** Where no text is rated 2, the judge refuses, or the gate is not passed, the value is None, the reason is in words and
  the counts are there. Nothing is guessed.
- **Additive steering.** Factor 0 is the unsteered model; `mode="clamp"`, `"scale"` and `"ablate"` are there too. The unit of factors is the 99 %
  quantile of the feature's largest activations.
- **The gate.** As in the paper, Faithfulness is measured where Clarity and Responsiveness reach 0.5 (`gate=None`: always).

`preset="paper"` gives the reference's settings, budgets, steering and arithmetic (`fade_lens.runs.presets`).

How to read a value: its interval is nominally 95 % and about the corpus, not about all texts there are. A description holds where the
whole intervals of Clarity and Responsiveness lie at or above the gate, fails where one lies below it, and is open otherwise (`fade_lens.scorers.standing`).
Without an interval (fewer than three texts rated 2, say) `interval_reason` says why. How often intervals hold the
truth is simulated in `tests/benchmarks/README.md`.

What each score notices (`fade_lens.analysis.sanity`): AUROC, and so Clarity and Responsiveness, does not notice a description that is too narrow;
Purity, F1, IoU and correlation notice one that is too narrow and one that is too broad.
"""
