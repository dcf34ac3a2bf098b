"""Ways to run a model token by token, each in a file behind `base.Decoder`; `choosing` takes the fastest that fits."""
