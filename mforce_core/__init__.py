"""The model without ComfyUI: transformer, loading, sampling, depth codec, autoencoder, point cloud.

The names below load their modules when they are first used, so that :mod:`.release` can be read without PyTorch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .depth.codec import decode_depth, encode_depth
    from .encoders.autoencoder_files import load_autoencoder
    from .encoders.words import load_text_encoder
    from .pipeline import Pipeline
    from .sampling.path import NoisePath
    from .sampling.path_spec import PathSpec
    from .sampling.rollout import sample
    from .sampling.schedule import rollout_times
    from .scene3d.point_cloud import unproject
    from .weights.checkpoint import load_model

__all__ = [
    "NoisePath",
    "PathSpec",
    "Pipeline",
    "decode_depth",
    "encode_depth",
    "load_autoencoder",
    "load_model",
    "load_text_encoder",
    "rollout_times",
    "sample",
    "unproject",
]

_HOME = {
    "NoisePath": ".sampling.path",
    "PathSpec": ".sampling.path_spec",
    "Pipeline": ".pipeline",
    "decode_depth": ".depth.codec",
    "encode_depth": ".depth.codec",
    "load_autoencoder": ".encoders.autoencoder_files",
    "load_model": ".weights.checkpoint",
    "load_text_encoder": ".encoders.words",
    "rollout_times": ".sampling.schedule",
    "sample": ".sampling.rollout",
    "unproject": ".scene3d.point_cloud",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_HOME[name], __name__), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
