"""Ways to run a model token by token with a key-value cache."""
