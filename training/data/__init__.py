"""Collections of images, depth and captions: reading, checking, encoding once, and the batches of training."""
