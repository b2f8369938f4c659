"""The ``mforce`` command line. PyTorch is imported only by the commands that compute."""
