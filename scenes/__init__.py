"""Procedural RGB + depth + caption scenes: a room, one to three solids, a pinhole camera."""

from .camera import Camera, own_camera
from .captions import captions
from .dataset import Shard, read_shards, write_dataset
from .layout import MAX_OBJECTS, SceneLayout, sample_layouts
from .render import render
from .views import picture_bounds, sample_views
from .vocabulary import VOCABULARY

__all__ = [
    "MAX_OBJECTS",
    "VOCABULARY",
    "Camera",
    "SceneLayout",
    "Shard",
    "captions",
    "own_camera",
    "picture_bounds",
    "read_shards",
    "render",
    "sample_layouts",
    "sample_views",
    "write_dataset",
]
