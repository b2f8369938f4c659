"""Modality Forcing: one diffusion transformer for an image and its depth.

The folder is both a ComfyUI node pack and the Python package ``mforce``. Importing it loads neither PyTorch nor
ComfyUI: ComfyUI calls :func:`comfy_entrypoint`, everyone else uses :class:`Pipeline` or imports
:mod:`mforce.mforce_core`.
"""

from typing import TYPE_CHECKING, Any

from .version import __version__ as __version__

if TYPE_CHECKING:
    from .mforce_core.pipeline import Pipeline as Pipeline

# ComfyUI serves this folder as /extensions/<the pack's folder>: help pages of the nodes, and the upload of depth files.
WEB_DIRECTORY = "web"


async def comfy_entrypoint():
    """Return the pack's ComfyUI extension (V3 API); called by ComfyUI when it loads custom nodes."""
    from .nodes import ModalityForcingExtension

    return ModalityForcingExtension()


def __getattr__(name: str) -> Any:
    if name == "Pipeline":  # loads PyTorch, so not before somebody asks for it
        from .mforce_core.pipeline import Pipeline

        return Pipeline
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
