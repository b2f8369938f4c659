"""Depth maps: the code that the model takes, files, sizes, ranges and colors."""
