"""Depth of clips that does not flicker: frames in, one after the other, depth out."""
