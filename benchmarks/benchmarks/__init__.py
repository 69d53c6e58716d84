"""The asv suite: a module for each part of the package, with NumPy beside it."""
