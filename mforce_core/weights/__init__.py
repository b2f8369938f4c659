"""Checkpoints: opening, converting, quantizing and sizing them."""
