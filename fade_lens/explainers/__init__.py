"""Explainers: from the evidence of a feature to a description, or to the reason why there is none.

A file with a subclass of `fade_lens.explainers.base.Explainer` under `@explainer("name")` is all that a new one takes.
"""
