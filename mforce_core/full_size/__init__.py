"""Depth at the size of the picture: a map of the model's size, enlarged, then refined in overlapping tiles."""
