"""Pure functions from arrays to values with intervals."""
