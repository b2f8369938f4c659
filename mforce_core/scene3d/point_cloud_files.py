"""A point cloud as the bytes of a PLY or a GLB file, and back from a PLY.

PLY has code of its own here, since ComfyUI brings no library that reads it (neither plyfile nor trimesh).
"""

from __future__ import annotations

import re

import numpy as np
import torch

from .point_cloud import PointCloud

_POSITION, _NORMAL, _COLOR = ("x", "y", "z"), ("nx", "ny", "nz"), ("red", "green", "blue")
_TYPES = {
    **{"char": "i1", "uchar": "u1", "short": "i2", "ushort": "u2", "int": "i4", "uint": "u4"},
    **{"int8": "i1", "uint8": "u1", "int16": "i2", "uint16": "u2", "int32": "i4", "uint32": "u4"},
    **{"float": "f4", "double": "f8", "float32": "f4", "float64": "f8"},
}
_ORDERS = {"ascii": "", "binary_little_endian": "<", "binary_big_endian": ">"}


def to_ply(cloud: PointCloud) -> bytes:
    """Binary little-endian PLY: float32 x, y, z, where the cloud has them nx, ny, nz and uint8 red, green, blue."""
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

    def columns(names: tuple[str, ...]) -> torch.Tensor | None:
        if not set(names) <= set(vertices.dtype.names or ()):
            return None
        return torch.from_numpy(np.stack([vertices[name].astype(np.float32) for name in names], axis=1))

    points, normals, colors = columns(_POSITION), columns(_NORMAL), columns(_COLOR)
    assert points is not None
    if colors is not None:
        kind = vertices.dtype[_COLOR[0]]
        whole = 1.0 if kind.kind == "f" else float(np.iinfo(kind).max)
        colors = (colors / whole * 255.0).clamp(0.0, 255.0).round().to(torch.uint8)
    return PointCloud(points, colors, None, normals).select(points.isfinite().all(dim=1))


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
        if not properties or count == 0:
            break
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
