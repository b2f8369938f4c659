"""Triton versions of the steps: the only modules that import Triton, imported when a step first runs on it."""
