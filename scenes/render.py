"""Batched ray casting: a layout in, display-referred RGB and exact z-depth out."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor

from . import intersect, surfaces
from .camera import Camera, own_camera
from .intersect import MISS, Vector
from .layout import HALF_VIEW, MAX_OBJECTS, SceneLayout, sample_layouts
from .vocabulary import SHAPES

# Few scenes at a time keep the intermediate pictures in a CPU's cache: 4 take half the time a scene that 32 do.
CHUNK = 4
# A GPU is only busy with many.
_DEVICE_CHUNK = 64
STRIPES = 5.0

_CEILING = tuple(float(c) for c in surfaces.to_linear(surfaces.hsv_to_rgb(*torch.tensor(surfaces.CEILING_TONE))))

log = logging.getLogger(__name__)

Scene = dict[str, Tensor]


def render(
    layout: SceneLayout,
    size: int = 128,
    supersample: int = 2,
    *,
    camera: Camera | None = None,
    compiled: bool = False,
    device: str | torch.device = "cpu",
) -> tuple[Tensor, Tensor]:
    """Render B scenes, each from its own camera or from the one of `camera` (B cameras) in its place.

    Returns rgb (B, 3, size, size) in [0, 1], averaged over supersample^2 rays a pixel, and depth (B, size,
    size), the float32 z-depth in meters of the ray through the pixel's center. `compiled` is worth its start-
    up time from some thousand scenes on; where there is no compiler the scenes are rendered without it.
    Raises ValueError if size or supersample is below 1, or the numbers of scenes and cameras differ.
    """
    camera = own_camera(layout) if camera is None else camera
    if len(camera) != len(layout):
        raise ValueError(f"{len(layout)} scenes need as many cameras; got {len(camera)}.")
    if size < 1 or supersample < 1:
        raise ValueError(f"size and supersample must be at least 1; got {size} and {supersample}.")
    count = len(layout)
    rgb, depth = torch.empty(count, 3, size, size), torch.empty(count, size, size)
    if count == 0:
        return rgb, depth
    device = torch.device(device)
    chunk = CHUNK if device.type == "cpu" else _DEVICE_CHUNK
    # The compiled function takes one batch size only, so the last chunk is filled up with the last scene.
    filled = torch.arange(-(-count // chunk) * chunk).clamp_max(count - 1)
    packed = _pack(layout[filled], camera[filled]).to(device)
    compiled = compiled and device.type == "cpu" and can_compile(size, supersample)
    for start in range(0, count, chunk):
        stop = min(start + chunk, count)
        picture, distance = _run_chunk(packed[start : start + chunk], size, supersample, compiled)
        rgb[start:stop], depth[start:stop] = picture[: stop - start], distance[: stop - start]
    return rgb, depth


def camera_grid(size: int, supersample: int = 1) -> tuple[Tensor, Tensor]:
    """Image-plane x and y (down), at unit z-depth, of the rays: two tensors (supersample^2, size^2)."""
    offsets = (torch.arange(supersample) + 0.5) / supersample
    steps = (torch.arange(size)[None, :] + offsets[:, None]) * (2 * HALF_VIEW / size) - HALF_VIEW
    shape = (supersample, supersample, size, size)
    u = steps[None, :, None, :].expand(shape).reshape(supersample**2, size**2)
    v = steps[:, None, :, None].expand(shape).reshape(supersample**2, size**2)
    return u.contiguous(), v.contiguous()


@torch.no_grad()
def room_shares(layout: SceneLayout, camera: Camera) -> tuple[Tensor, Tensor]:
    """Shares of the cameras' pictures that floor and walls fill, (B,) each, counting what objects hide."""
    scene = _unpack(_pack(layout, camera))
    ray = _camera_ray(scene, *camera_grid(16))
    _, _, on_level = _room_hit(scene, ray)
    floor, wall = on_level & (ray[1] < 0), ~on_level
    return floor.float().mean((1, 2)), wall.float().mean((1, 2))


def _pack(layout: SceneLayout, camera: Camera) -> Tensor:
    """Everything a ray needs that does not depend on the ray, as one tensor (B, len(_NAMES))."""
    return torch.stack([value.float() for value in _scalars(layout, camera).values()], dim=1)


def _unpack(packed: Tensor) -> Scene:
    """The columns of `_pack` by name, as (B, 1, 1) tensors that broadcast against rays."""
    scene = {name: packed[:, column, None, None] for column, name in enumerate(_NAMES)}
    for name in _FLAGS:
        scene[name] = scene[name] > 0.5
    return scene


def _scalars(layout: SceneLayout, camera: Camera) -> dict[str, Tensor]:
    scene = {
        "eye_x": camera.position[:, 0],
        "eye_y": camera.position[:, 1],
        "eye_z": camera.position[:, 2],
        "pitch_cos": camera.pitch.cos(),
        "pitch_sin": camera.pitch.sin(),
        "heading_cos": camera.heading.cos(),
        "heading_sin": camera.heading.sin(),
        "zoom": camera.scale,
        "center_x": camera.center[:, 0] * HALF_VIEW,
        "center_y": camera.center[:, 1] * HALF_VIEW,
        "yaw_cos": layout.yaw.cos(),
        "yaw_sin": layout.yaw.sin(),
        "left": layout.room[:, 0],
        "right": layout.room[:, 1],
        "back": layout.room[:, 2],
        "ceiling": layout.room[:, 3],
        "floor": layout.floor,
        "wall": layout.wall,
        "scale": 0.8 + 0.5 * layout.surface[:, 0],
        "phase": layout.surface[:, 1],
        "light_power": 0.85 + 0.4 * layout.surface[:, 2],
        "ambient": 0.36 + 0.14 * layout.surface[:, 3],
    }
    for axis, name in enumerate("xyz"):
        scene[f"light_{name}"] = layout.light[:, axis]
    gain = torch.stack((layout.surface[:, 4], layout.surface[:, 5]), dim=1) * 0.16 + 0.88
    tables = (("floor", surfaces.FLOOR_TONES, layout.floor, 0), ("wall", surfaces.WALL_TONES, layout.wall, 1))
    for name, tones, kind, column in tables:
        for tone in (0, 1):
            hsv = torch.tensor([pair[tone] for pair in tones])[kind]
            color = surfaces.to_linear(surfaces.hsv_to_rgb(hsv[:, 0], hsv[:, 1], hsv[:, 2] * gain[:, column]))
            for channel, value in zip("rgb", color, strict=True):
                scene[f"{name}_{tone}_{channel}"] = value

    kind = layout.shape
    r, h = layout.radius, layout.height
    sphere, cube, cylinder, cone = (kind == SHAPES.index(name) for name in ("sphere", "cube", "cylinder", "cone"))
    slope = (r / h) ** 2
    zero = torch.zeros_like(r)
    solids = {
        "x": layout.position[..., 0],
        "z": layout.position[..., 1],
        "top": h,
        "half": r,
        "cap": torch.where(cylinder, r, zero),
        "quadric_a": torch.where(sphere, 1.0, torch.where(cone, -slope, zero)),
        "quadric_b": torch.where(sphere, -r, torch.where(cone, slope * h, zero)),
        "quadric_c": torch.where(sphere, zero, torch.where(cone, -slope * h * h, -r * r)),
        "cos": layout.angle.cos(),
        "sin": layout.angle.sin(),
        "cube": cube & layout.exists,
        "round": ~cube & layout.exists,
        "contact": torch.where(sphere, 0.35 * r, r),
        "shine": torch.where(layout.exists, 0.45, 0.0),
        "striped": layout.striped.float(),
    }
    color = surfaces.to_linear(surfaces.hsv_to_rgb(*layout.hsv.unbind(-1)))
    solids.update(zip(("red", "green", "blue"), color, strict=True))
    for name, values in solids.items():
        for slot in range(MAX_OBJECTS):
            scene[f"{name}{slot}"] = values[:, slot]
    return scene


def _names() -> tuple[str, ...]:
    layout = sample_layouts(1, 0)
    return tuple(_scalars(layout, own_camera(layout)))


_NAMES = _names()
_FLAGS = tuple(f"{kind}{slot}" for kind in ("cube", "round") for slot in range(MAX_OBJECTS))


def _camera_ray(scene: Scene, u: Tensor, v: Tensor) -> Vector:
    u, v = u * scene["zoom"] + scene["center_x"], v * scene["zoom"] + scene["center_y"]
    cos, sin = scene["pitch_cos"], scene["pitch_sin"]
    ahead = cos - v * sin
    turn_cos, turn_sin = scene["heading_cos"], scene["heading_sin"]
    return u * turn_cos + ahead * turn_sin, -sin - v * cos, ahead * turn_cos - u * turn_sin


def _eye(scene: Scene) -> Vector:
    return scene["eye_x"], scene["eye_y"], scene["eye_z"]


def _to_room(scene: Scene, x: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
    cos, sin = scene["yaw_cos"], scene["yaw_sin"]
    return x * cos + z * sin, z * cos - x * sin


def _hit_solid(scene: Scene, slot: int, origin: Vector, ray: Vector) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """First hit with the solid in a slot: the ray parameter, then on the disc, on an x face, on a y face."""
    ox, oy, oz = origin[0] - scene[f"x{slot}"], origin[1], origin[2] - scene[f"z{slot}"]
    top = scene[f"top{slot}"]
    quadric_terms = (scene[f"{name}{slot}"] for name in ("cap", "quadric_a", "quadric_b", "quadric_c"))
    curved, on_disc = intersect.quadric((ox, oy, oz), ray, top, *quadric_terms)
    cos, sin = scene[f"cos{slot}"], scene[f"sin{slot}"]
    turned = (ox * cos + oz * sin, oy, oz * cos - ox * sin)
    turned_ray = (ray[0] * cos + ray[2] * sin, ray[1], ray[2] * cos - ray[0] * sin)
    flat, on_x, on_y = intersect.box(turned, turned_ray, scene[f"half{slot}"], top)
    cube = scene[f"cube{slot}"]
    distance = torch.where(cube, flat, torch.where(scene[f"round{slot}"], curved, MISS))
    return distance, on_disc, on_x, on_y


def _solid_normal(
    scene: Scene, slot: int, point: Vector, ray: Vector, on_disc: Tensor, on_x: Tensor, on_y: Tensor
) -> Vector:
    x, y, z = point[0] - scene[f"x{slot}"], point[1], point[2] - scene[f"z{slot}"]
    slope = scene[f"quadric_a{slot}"] * y + scene[f"quadric_b{slot}"]
    length = torch.rsqrt(x * x + z * z + slope * slope + 1e-12)
    nx = torch.where(on_disc, 0.0, x * length)
    ny = torch.where(on_disc, 1.0, slope * length)
    nz = torch.where(on_disc, 0.0, z * length)

    # Faces of a cube look against the ray; its local x axis is (cos, sin), its local z axis (-sin, cos).
    cos, sin = scene[f"cos{slot}"], scene[f"sin{slot}"]
    ray_x, ray_z = ray[0] * cos + ray[2] * sin, ray[2] * cos - ray[0] * sin
    face_x = torch.where(on_x, torch.where(ray_x > 0, -1.0, 1.0), 0.0)
    face_z = torch.where(on_x | on_y, 0.0, torch.where(ray_z > 0, -1.0, 1.0))
    cube = scene[f"cube{slot}"]
    return (
        torch.where(cube, face_x * cos - face_z * sin, nx),
        torch.where(cube, torch.where(on_y, 1.0, 0.0), ny),
        torch.where(cube, face_x * sin + face_z * cos, nz),
    )


def _room_hit(scene: Scene, ray: Vector) -> tuple[Tensor, Tensor, Tensor]:
    ray_x, ray_z = _to_room(scene, ray[0], ray[2])
    eye_x, eye_z = _to_room(scene, scene["eye_x"], scene["eye_z"])
    walls = (scene[name] for name in ("left", "right", "back", "ceiling"))
    return intersect.room((eye_x, scene["eye_y"], eye_z), (ray_x, ray[1], ray_z), *walls)


def trace_depth(scene: Scene, u: Tensor, v: Tensor) -> Tensor:
    """z-depth (B, rays...) of the first surface each camera ray meets."""
    ray, origin = _camera_ray(scene, u, v), _eye(scene)
    depth = _room_hit(scene, ray)[0]
    for slot in range(MAX_OBJECTS):
        depth = torch.minimum(depth, _hit_solid(scene, slot, origin, ray)[0])
    return depth


def trace_color(scene: Scene, u: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Display-referred red, green and blue (B, rays...) of each camera ray."""
    ray, origin = _camera_ray(scene, u, v), _eye(scene)
    distance, on_side, on_level = _room_hit(scene, ray)
    hits = [_hit_solid(scene, slot, origin, ray) for slot in range(MAX_OBJECTS)]
    nearest = distance
    for hit in hits:
        nearest = torch.minimum(nearest, hit[0])
    point = (origin[0] + nearest * ray[0], origin[1] + nearest * ray[1], origin[2] + nearest * ray[2])

    is_floor = on_level & (ray[1] < 0)
    color = _room_color(scene, point, on_side, on_level, is_floor)
    normal = _room_normal(scene, ray, on_side, on_level)
    shine = torch.zeros_like(nearest)
    for slot, (entry, *faces) in enumerate(hits):
        here = entry <= nearest
        normal = _choose(here, _solid_normal(scene, slot, point, ray, *faces), normal)
        band = torch.remainder(torch.floor(point[1] / scene[f"top{slot}"] * STRIPES), 2.0)
        shade = 1.0 - 0.68 * band * scene[f"striped{slot}"]
        paint = (scene[f"red{slot}"] * shade, scene[f"green{slot}"] * shade, scene[f"blue{slot}"] * shade)
        color = _choose(here, paint, color)
        shine = torch.where(here, scene[f"shine{slot}"], shine)
        is_floor = is_floor & ~here

    lit, gloss = _light(scene, point, normal, ray, is_floor)
    gloss = gloss * shine
    red, green, blue = (_display(channel * lit + gloss) for channel in color)
    return red, green, blue


def _choose(mask: Tensor, chosen: Vector, other: Vector) -> Vector:
    first, second, third = (torch.where(mask, new, old) for new, old in zip(chosen, other, strict=True))
    return first, second, third


def _room_color(
    scene: Scene, point: Vector, on_side: Tensor, on_level: Tensor, is_floor: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    x, z = _to_room(scene, point[0], point[2])
    floor_share, floor_tone = surfaces.floor_mix(scene["floor"], x, z, scene["scale"], scene["phase"])
    along = torch.where(on_side, z, x)
    wall_share, wall_tone = surfaces.wall_mix(scene["wall"], along, point[1], scene["phase"])
    color: list[Tensor] = []
    for channel, above in zip("rgb", _CEILING, strict=True):
        floor_first, floor_second = scene[f"floor_0_{channel}"], scene[f"floor_1_{channel}"]
        wall_first, wall_second = scene[f"wall_0_{channel}"], scene[f"wall_1_{channel}"]
        floor = (floor_first + (floor_second - floor_first) * floor_share) * floor_tone
        wall = (wall_first + (wall_second - wall_first) * wall_share) * wall_tone
        color.append(torch.where(is_floor, floor, torch.where(on_level, above, wall)))
    red, green, blue = color
    return red, green, blue


def _room_normal(scene: Scene, ray: Vector, on_side: Tensor, on_level: Tensor) -> Vector:
    ray_x, _ = _to_room(scene, ray[0], ray[2])
    normal_x = torch.where(on_side, torch.where(ray_x > 0, -1.0, 1.0), 0.0)
    normal_z = torch.where(on_side | on_level, 0.0, -1.0)
    cos, sin = scene["yaw_cos"], scene["yaw_sin"]
    normal_y = torch.where(on_level, torch.where(ray[1] < 0, 1.0, -1.0), 0.0)
    return normal_x * cos - normal_z * sin, normal_y, normal_x * sin + normal_z * cos


def _light(scene: Scene, point: Vector, normal: Vector, ray: Vector, is_floor: Tensor) -> tuple[Tensor, Tensor]:
    """Diffuse and ambient light, and the specular term, at a point."""
    px, py, pz = point
    nx, ny, nz = normal
    # Leaving the surface along the normal keeps a point out of its own shadow.
    start = (px + 4e-3 * nx, py + 4e-3 * ny, pz + 4e-3 * nz)
    to_light = (scene["light_x"] - start[0], scene["light_y"] - start[1], scene["light_z"] - start[2])
    squared = to_light[0] * to_light[0] + to_light[1] * to_light[1] + to_light[2] * to_light[2]
    inverse = torch.rsqrt(squared)
    facing = (nx * to_light[0] + ny * to_light[1] + nz * to_light[2]) * inverse

    shadow, contact = torch.zeros_like(squared), torch.ones_like(squared)
    for slot in range(MAX_OBJECTS):
        blocked = _hit_solid(scene, slot, start, to_light)[0] < 1.0
        shadow = torch.where(blocked, 1.0, shadow)
        # The floor darkens towards a footprint, where a solid hides much of the room.
        gap_x, gap_z = px - scene[f"x{slot}"], pz - scene[f"z{slot}"]
        gap = ((gap_x * gap_x + gap_z * gap_z).sqrt() - scene[f"contact{slot}"]).clamp_min(0.0)
        near = torch.exp(-5.0 * gap / scene[f"top{slot}"])
        present = scene[f"cube{slot}"] | scene[f"round{slot}"]
        contact = contact * torch.where(present & is_floor, 1.0 - 0.5 * near, 1.0)

    diffuse = facing.clamp_min(0.0) * (1.0 - shadow) * scene["light_power"] / (0.75 + 0.06 * squared)
    ambient = scene["ambient"] * (0.82 + 0.18 * ny) * contact

    length = torch.rsqrt(ray[0] * ray[0] + ray[1] * ray[1] + ray[2] * ray[2])
    half_x, half_y, half_z = (t * inverse - d * length for t, d in zip(to_light, ray, strict=True))
    half_length = torch.rsqrt(half_x * half_x + half_y * half_y + half_z * half_z + 1e-9)
    gloss = ((nx * half_x + ny * half_y + nz * half_z) * half_length).clamp_min(0.0)
    gloss = gloss**32
    return diffuse + ambient, gloss * (1.0 - shadow) * (facing > 0)


def _display(linear: Tensor) -> Tensor:
    return linear.clamp(1e-6, 1.0) ** (1.0 / surfaces.GAMMA)


def _render_chunk(packed: Tensor, size: int, supersample: int) -> tuple[Tensor, Tensor]:
    scene = _unpack(packed)
    u, v = (rays.to(packed.device) for rays in camera_grid(size, supersample))
    samples = trace_color(scene, u, v)
    rgb = torch.stack([channel.mean(dim=1) for channel in samples], dim=1)
    u, v = (rays.to(packed.device) for rays in camera_grid(size))
    depth = trace_depth(scene, u, v)
    return rgb.unflatten(-1, (size, size)), depth[:, 0].unflatten(-1, (size, size))


@cache
def _compiled() -> Callable[[Tensor, int, int], tuple[Tensor, Tensor]]:
    return torch.compile(_render_chunk, dynamic=False, fullgraph=True)


@torch.no_grad()
def _run_chunk(packed: Tensor, size: int, supersample: int, compiled: bool) -> tuple[Tensor, Tensor]:
    if compiled:
        return _compiled()(packed, size, supersample)
    return _render_chunk(packed, size, supersample)


@cache
def can_compile(size: int, supersample: int) -> bool:
    """Whether the compiled renderer works here; the first call compiles it, for about a minute."""
    try:
        layout = sample_layouts(CHUNK, 0)
        _run_chunk(_pack(layout, own_camera(layout)), size, supersample, True)
    except Exception as error:  # the compiler's toolchain fails in too many ways to name them
        log.warning("Rendering without torch.compile: %s", str(error).strip().splitlines()[0])
        return False
    return True
