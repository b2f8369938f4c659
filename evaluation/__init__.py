"""Measures of depth and of colour, and the held-out evaluation of the built-in model."""
