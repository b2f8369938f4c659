"""``python -m mforce``: the same command line as the ``mforce`` script."""

from .cli.app import main

if __name__ == "__main__":
    main()
