"""Training: procedural scenes, data, the recipe and the loop."""
