"""Small helpers that know nothing of features, judges or runs."""
