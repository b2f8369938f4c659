"""Measures of depth and of color, and the held-out evaluation of the built-in model."""
