"""Descriptions from Neuronpedia: importing them, checking that they belong to an SAE, what is wrong with them at sight, links.

```python
from fade_lens import neuronpedia

table = neuronpedia.descriptions("gpt2-small/8-res-jb", indices=range(200))   # or an SAE, a file, a folder
neuronpedia.flags(table)                                                        # what is wrong with them, no LLM asked
fade.evaluate(table)                                                            # score them
```

`fade-lens audit` does all of it: imports every description (bulk data, exports, API answers; a local copy or folder works too), checks that stored
activations come from this model and SAE, flags what is wrong at sight without any LLM (`--flags-only` stops there, and needs neither model nor judge),
scores the rest, and gives each a verdict and a severity. Swapped labels are named with the feature that they fit. It leaves `audit.csv`, JSONL, Parquet,
the report, and lists that Neuronpedia opens.

A run records its SAE's release, SAE id and Neuronpedia id; `Results.frame` links each feature (`dashboard_url`), `Result.dashboard()` shows its page.
"""

import lazy_loader

# The names, and where each lives, stand in `__init__.pyi`.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
