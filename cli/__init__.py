"""The ``mforce`` command line. PyTorch is imported only by the commands that compute."""

from importlib.util import find_spec

# The script is installed with the package, its libraries only with an extra.
if find_spec("typer") is None or find_spec("rich") is None:
    raise SystemExit("The mforce command needs typer and rich: pip install 'comfyui-modality-forcing[cli]'.")
