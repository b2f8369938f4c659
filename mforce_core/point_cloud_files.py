"""A point cloud as the bytes of a PLY or a GLB file."""

from __future__ import annotations

import numpy as np

from .point_cloud import PointCloud


def to_ply(cloud: PointCloud) -> bytes:
    """Binary little-endian PLY: float32 x, y, z and, where the cloud has colours, uint8 red, green, blue."""
    fields = [("x", "<f4"), ("y", "<f4"), ("z", "<f4")]
    if cloud.colors is not None:
        fields += [("red", "u1"), ("green", "u1"), ("blue", "u1")]
    vertices = np.empty(len(cloud), dtype=fields)
    points = cloud.points.detach().cpu().numpy()
    for axis, name in enumerate("xyz"):
        vertices[name] = points[:, axis]
    if cloud.colors is not None:
        colors = cloud.colors.cpu().numpy()
        for channel, name in enumerate(("red", "green", "blue")):
            vertices[name] = colors[:, channel]
    properties = [f"property {'uchar' if kind == 'u1' else 'float'} {name}" for name, kind in fields]
    header = [
        "ply",
        "format binary_little_endian 1.0",
        f"element vertex {len(cloud)}",
        *properties,
        "end_header",
    ]
    return "\n".join([*header, ""]).encode("ascii") + vertices.tobytes()


def to_glb(cloud: PointCloud) -> bytes:
    """Binary glTF 2.0 with one POINTS primitive. Needs trimesh.

    Raises:
        ModuleNotFoundError: trimesh is not installed; the message says how to install it.
    """
    try:
        import trimesh
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("GLB files need trimesh: pip install trimesh, or save a PLY.") from error

    colors = None if cloud.colors is None else cloud.colors.cpu().numpy()
    points = trimesh.PointCloud(cloud.points.detach().cpu().numpy(), colors=colors)
    return trimesh.Scene(points).export(file_type="glb")
