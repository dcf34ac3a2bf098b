"""Descriptions from Neuronpedia: importing them, checking that they belong to an SAE, what is wrong with them at sight, links.

```python
from fade_lens import neuronpedia

table = neuronpedia.descriptions("gpt2-small/8-res-jb", indices=range(200))   # or an SAE, a file, a folder
neuronpedia.flags(table)                                                        # what is wrong with them, no LLM asked
fade.evaluate(table)                                                            # score them
```
"""

import lazy_loader

# The names, and where each lives, stand in `__init__.pyi`.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
