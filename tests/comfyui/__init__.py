"""Tests of the node pack. Those that need ComfyUI run it with its own Python, and are skipped without it."""
