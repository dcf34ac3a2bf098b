"""Runs: settings, the pipeline, the store and the results."""
