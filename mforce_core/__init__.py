"""The model without ComfyUI: transformer, loading, sampling, depth codec, autoencoder, point cloud."""

from .depth.codec import decode_depth, encode_depth
from .encoders.autoencoder import load_autoencoder
from .encoders.words import load_text_encoder
from .sampling.rollout import sample
from .sampling.schedule import rollout_times
from .scene3d.point_cloud import unproject
from .weights.checkpoint import load_model

__all__ = [
    "decode_depth",
    "encode_depth",
    "load_autoencoder",
    "load_model",
    "load_text_encoder",
    "rollout_times",
    "sample",
    "unproject",
]
