"""The model and its features: loading, hooks, tokens, activations."""
