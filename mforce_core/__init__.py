"""The model without ComfyUI: transformer, loading, sampling, depth codec, autoencoder, point cloud."""

from .autoencoder import load_autoencoder
from .checkpoint import load_model
from .depth_codec import decode_depth, encode_depth
from .point_cloud import unproject
from .sampling import sample
from .schedule import rollout_times
from .text import load_text_encoder

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
