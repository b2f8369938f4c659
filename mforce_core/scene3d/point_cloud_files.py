"""A point cloud as the bytes of a PLY or a GLB file, and back from a PLY.

PLY has code of its own here, since ComfyUI brings no library that reads it (neither plyfile nor trimesh).
"""

from __future__ import annotations

import json
import re
import struct
from typing import Any

import numpy as np
import torch

from ..picture.color import to_linear
from .point_cloud import PointCloud

_OFFSET = "mforce_offset"
_POSITION, _NORMAL, _COLOR = ("x", "y", "z"), ("nx", "ny", "nz"), ("red", "green", "blue")
#: Names of colors in files of other programs, in any case.
_COLORS = (_COLOR, ("r", "g", "b"), ("diffuse_red", "diffuse_green", "diffuse_blue"))
_TYPES = {
    **{"char": "i1", "uchar": "u1", "short": "i2", "ushort": "u2", "int": "i4", "uint": "u4"},
    **{"int8": "i1", "uint8": "u1", "int16": "i2", "uint16": "u2", "int32": "i4", "uint32": "u4"},
    **{"float": "f4", "double": "f8", "float32": "f4", "float64": "f8"},
}
#: glTF's name for three float32 each.
_VECTORS = {"componentType": 5126, "type": "VEC3"}
_ORDERS = {"ascii": "", "binary_little_endian": "<", "binary_big_endian": ">"}


def to_ply(cloud: PointCloud) -> bytes:
    """Binary little-endian PLY: float32 x, y, z, where the cloud has them nx, ny, nz and uint8 red, green, blue.

    A comment says what was taken off the points to center them.
    """
    columns = [(_POSITION, "<f4", cloud.points), (_NORMAL, "<f4", cloud.normals), (_COLOR, "u1", cloud.colors)]
    given = [(names, kind, values) for names, kind, values in columns if values is not None]
    fields = [(name, kind) for names, kind, _ in given for name in names]
    vertices = np.empty(len(cloud), dtype=fields)
    for names, _, values in given:
        array = values.detach().cpu().numpy()
        for axis, name in enumerate(names):
            vertices[name] = array[:, axis]
    properties = [f"property {'uchar' if kind == 'u1' else 'float'} {name}" for name, kind in fields]
    header = [
        "ply",
        "format binary_little_endian 1.0",
        *([f"comment {_OFFSET} {' '.join(map(repr, cloud.offset))}"] if any(cloud.offset) else []),
        f"element vertex {len(cloud)}",
        *properties,
        "end_header",
    ]
    return "\n".join([*header, ""]).encode("ascii") + vertices.tobytes()


def read_ply(data: bytes) -> PointCloud:
    """The vertices of a PLY file, binary or text, with their colors and normals if it has any.

    Points that are not finite are left out; faces and other properties are not read.

    Raises:
        ValueError: in one sentence, if this is not a PLY file with x, y and z, or it ends too early.
    """
    order, elements, body = _read_header(data)
    vertices = _read_vertices(body, order, elements)
    if not set(_POSITION) <= set(vertices.dtype.names or ()):
        raise ValueError("the PLY file has no x, y and z for its vertices.")

    points, normals = _columns(vertices, _POSITION), _columns(vertices, _NORMAL)
    assert points is not None
    cloud = PointCloud(points, _read_colors(vertices), None, normals, _read_offset(data))
    return cloud.select(points.isfinite().all(dim=1))


def _read_offset(data: bytes) -> tuple[float, float, float]:
    """What our own comment says was taken off the points."""
    number = rb"(-?[\d.e+-]+)"
    found = re.search(rb"\ncomment %s %s %s %s\r?\n" % (_OFFSET.encode(), number, number, number), data[:4096])
    try:
        x, y, z = map(float, found.groups()) if found else (0.0, 0.0, 0.0)
    except ValueError:
        return 0.0, 0.0, 0.0
    return x, y, z


def _columns(vertices: np.ndarray, names: tuple[str, ...]) -> torch.Tensor | None:
    """(N, 3) float32 of three properties, None where they are not all there."""
    if not set(names) <= set(vertices.dtype.names or ()):
        return None
    with np.errstate(over="ignore"):
        return torch.from_numpy(np.stack([vertices[name].astype(np.float32) for name in names], axis=1))


def _read_colors(vertices: np.ndarray) -> torch.Tensor | None:
    """(N, 3) uint8. White is 1, 255 or 65535, whichever the brightest color fits into; bytes always go to 255."""
    fields = {name.lower(): name for name in vertices.dtype.names or ()}
    names = next((names for names in _COLORS if fields.keys() >= set(names)), None)
    if names is None:
        return None
    kinds = {vertices.dtype[fields[name]] for name in names}
    columns = [vertices[fields[name]] for name in names]
    if all(kind.itemsize == 1 for kind in kinds):
        # A signed byte holds the same bits.
        return torch.from_numpy(np.stack([column.astype(np.uint8) for column in columns], axis=1))
    colors = np.nan_to_num(np.stack([column.astype(np.float64) for column in columns], axis=1))
    top = colors.max(initial=0.0)
    floats = any(kind.kind == "f" for kind in kinds)
    usual = (1.0, 255.0, 65535.0) if floats else (255.0, 65535.0)
    white = next((white for white in usual if top <= white), top)
    return torch.from_numpy((colors / white * 255).clip(0, 255).round().astype(np.uint8))


def _read_header(data: bytes) -> tuple[str, list[tuple[str, int, list[tuple[str, str]]]], bytes]:
    """Byte order, the elements in their order (name, count, properties by name and type), and what follows."""
    found = re.match(rb"ply\r?\n(.*?)end_header\r?\n", data, re.DOTALL)
    if found is None:
        raise ValueError("this is not a PLY file.")
    order: str | None = None
    elements: list[tuple[str, int, list[tuple[str, str]]]] = []
    for line in found[1].decode("ascii", errors="replace").splitlines():
        words = line.split()
        if words[:1] == ["format"] and len(words) == 3 and words[1] in _ORDERS:
            order = _ORDERS[words[1]]
        elif words[:1] == ["element"] and len(words) == 3 and words[2].isdigit():
            elements.append((words[1], int(words[2]), []))
        elif words[:1] == ["property"] and elements and len(words) in (3, 5):
            kind = "list" if words[1] == "list" else _TYPES.get(words[1])
            if kind is None:
                raise ValueError(f"the PLY file has a property of the unknown type {words[1]}.")
            elements[-1][2].append((words[-1], kind))
        elif words[:1] not in ([], ["comment"], ["obj_info"]):
            raise ValueError(f"the PLY file has a header line that means nothing: {line.strip()[:60]!r}.")
    if order is None:
        raise ValueError("the PLY file does not say in which format its numbers are.")
    return order, elements, data[found.end() :]


def _read_vertices(body: bytes, order: str, elements: list[tuple[str, int, list[tuple[str, str]]]]) -> np.ndarray:
    """The vertex element as a structured array."""
    lines = body.splitlines() if not order else []
    for name, count, properties in elements:
        if name != "vertex" and not order:
            lines = lines[count:]  # an item a line
            continue
        if any(kind == "list" for _, kind in properties):
            raise ValueError(f"the PLY file has lists in or before its vertices ({name}), which cannot be read.")
        kinds = np.dtype([(field, order + kind if order else "f8") for field, kind in properties])
        if name != "vertex":
            body = body[count * kinds.itemsize :]
            continue
        if not properties:
            break
        if not count:
            return np.empty(0, kinds)
        if order:
            if len(body) < count * kinds.itemsize:
                raise ValueError(f"the PLY file ends before its {count} vertices do.")
            return np.frombuffer(body, dtype=kinds, count=count)
        try:
            numbers = np.array([line.split() for line in lines[:count]], dtype=np.float64)
        except ValueError as error:
            raise ValueError("the PLY file has a vertex line that is not all numbers.") from error
        if numbers.shape != (count, len(properties)):
            raise ValueError(f"the PLY file does not have {count} vertices of {len(properties)} numbers.")
        true_kinds = np.dtype([(field, "=" + kind) for field, kind in properties])
        vertices = np.empty(count, dtype=true_kinds)
        for column, (field, _) in enumerate(properties):
            vertices[field] = numbers[:, column]
        return vertices
    raise ValueError("the PLY file has no vertices.")


def to_glb(cloud: PointCloud) -> bytes:
    """Binary glTF 2.0 with one POINTS primitive, and its colors and normals where the cloud has them.

    glTF wants linear vertex colors. They are floats: 8 bits, which trimesh writes, are too few for dark tones in linear
    light, and trimesh does not read 16. Where the cloud was moved is among the node's ``extras``, as in a PLY file's
    comment.
    """
    points = cloud.points.detach().cpu().numpy().astype("<f4")
    position: dict[str, Any] = {**_VECTORS, "bufferView": 0, "count": len(cloud)}
    if len(cloud):
        position |= {"min": points.min(axis=0).tolist(), "max": points.max(axis=0).tolist()}
    views, accessors, attributes = [points.tobytes()], [position], {"POSITION": 0}
    colors = None if cloud.colors is None else to_linear(cloud.colors.cpu().double() / 255).numpy()
    normals = None if cloud.normals is None else cloud.normals.detach().cpu().numpy()
    for name, values in (("COLOR_0", colors), ("NORMAL", normals)):
        if values is not None:
            attributes[name] = len(views)
            accessors.append({**_VECTORS, "bufferView": len(views), "count": len(cloud)})
            views.append(values.astype("<f4").tobytes())
    node: dict[str, Any] = {"mesh": 0, **({"extras": {_OFFSET: list(cloud.offset)}} if any(cloud.offset) else {})}
    starts = [sum(len(view) for view in views[:index]) for index in range(len(views))]
    scene = {
        "asset": {"version": "2.0", "generator": "mforce"},
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [node],
        "meshes": [{"primitives": [{"mode": 0, "attributes": attributes}]}],
        "buffers": [{"byteLength": sum(len(view) for view in views)}],
        "bufferViews": [
            {"buffer": 0, "byteOffset": start, "byteLength": len(view), "target": 34962}
            for start, view in zip(starts, views, strict=True)
        ],
        "accessors": accessors,
    }
    text = json.dumps(scene).encode()
    text += b" " * (-len(text) % 4)
    body = b"".join(views)
    body += b"\0" * (-len(body) % 4)
    chunks = struct.pack("<I4s", len(text), b"JSON") + text + struct.pack("<I4s", len(body), b"BIN\0") + body
    return struct.pack("<4sII", b"glTF", 2, 12 + len(chunks)) + chunks
