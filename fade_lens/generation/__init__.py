"""Steered continuations: what is generated, how likely it is, and the decoders behind it."""
