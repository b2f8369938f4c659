"""Procedural RGB + depth + caption scenes: a room, one to three solids, a pinhole camera."""

from .captions import captions
from .dataset import Shard, read_shards, write_dataset
from .layout import MAX_OBJECTS, SceneLayout, sample_layouts
from .render import render
from .vocabulary import VOCABULARY

__all__ = [
    "MAX_OBJECTS",
    "VOCABULARY",
    "SceneLayout",
    "Shard",
    "captions",
    "read_shards",
    "render",
    "sample_layouts",
    "write_dataset",
]
