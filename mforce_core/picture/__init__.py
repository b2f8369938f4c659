"""Pictures: files, and their placement on a canvas."""
