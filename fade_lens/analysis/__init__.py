"""What follows from runs, and what can be asked of SAEs without one.

| question | Python | shell |
|---|---|---|
| Which descriptions or runs are better, and by how much? | `results.summary()`, `compare_sources`, `compare` | `compare` |
| How do the SAEs of a release compare? | `release` | `release` |
| Which latents belong together, and which do wide SAEs split? | `latent_map` | `map` |
| Which of Neuronpedia's labels are wrong? | `neuronpedia.flags`, `fade_lens.analysis.audit` | `audit` |
| Would the scores notice a wrong description, is planted truth found? | `fade_lens.analysis.sanity`, `fade_lens.analysis.planted` | `sanity` |
| Do several latents share a description? | `explanations.collisions()`, `Fade.untangle` | |
| How many of a description's rules say what a latent fires on? | `polysemanticity` | |
| Which kind of silent texts fools the descriptions? | `by_negative` | |
| How complex are descriptions, from 0 (one string) to 5 (what must be inferred)? | `complexity` | |
| What do latents do to the vocabulary, against random directions? | `logit_weights` | |
| Does an SAE do in this model what it should? | `health` | `health` |
| Which tokens make a latent fire later? | `causes`, and `caused_texts=` on cards | `look --caused-texts` |
"""
