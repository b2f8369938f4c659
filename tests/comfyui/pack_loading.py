"""Importing the pack the way ComfyUI does: by path, under a name of ComfyUI's choosing."""

import importlib.util
import sys
from pathlib import Path

NAME = "pack_under_test"


def load_pack(root: Path) -> None:
    """Make the pack importable as ``pack_under_test`` where ComfyUI is, which gets to use the CPU only."""
    sys.argv = [sys.argv[0], "--cpu"]
    import comfy.options

    comfy.options.enable_args_parsing()
    spec = importlib.util.spec_from_file_location(NAME, root / "__init__.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[NAME] = module
    spec.loader.exec_module(module)
