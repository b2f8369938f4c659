"""Checkpoints: their layouts and quantized layers, read and written tensor by tensor."""
