"""Measurements of speed and memory; results of named machines are in `results/`."""
