"""Modules that stand in for packages that not every machine has."""
