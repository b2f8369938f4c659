"""What errors of a model's weights cost, found by running it."""
