"""Modality Forcing: one diffusion transformer for an image and its depth.

The folder is both a ComfyUI node pack and the Python package ``mforce``. Importing it loads neither PyTorch nor
ComfyUI: ComfyUI calls :func:`comfy_entrypoint`, everyone else imports :mod:`mforce.mforce_core`.
"""

__version__ = "0.2.0"

# ComfyUI serves this folder as /extensions/<the pack's folder>: help pages of the nodes, and the upload of depth files.
WEB_DIRECTORY = "web"


async def comfy_entrypoint():
    """Return the pack's ComfyUI extension (V3 API); called by ComfyUI when it loads custom nodes."""
    from .nodes import ModalityForcingExtension

    return ModalityForcingExtension()
