"""The commands' options and help pages, one module per group.

A command imports what it runs when it runs: PyTorch takes seconds to load, and a help page should not wait for it.
"""
