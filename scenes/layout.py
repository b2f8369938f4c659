"""Random scene parameters.

The scene frame has its origin on the floor under the camera: x right, y up, z along the camera's horizontal
heading, in meters. The room is turned about the vertical by `yaw`, which is the same picture as a camera
turned the other way and keeps the placement of objects in the view simple.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor

from .vocabulary import COLOR_HUES, FLOORS, SHAPES, WALLS

MAX_OBJECTS = 3
FOV_DEGREES = 65.0
HALF_VIEW = math.tan(math.radians(FOV_DEGREES / 2))

_CANDIDATES = 40
_SCENE_UNIFORMS = 48
_OBJECT_UNIFORMS = 12
_UNIFORMS = _SCENE_UNIFORMS + MAX_OBJECTS * (_OBJECT_UNIFORMS + 2 * _CANDIDATES)
# A picture may hide at most this share of an object's bounding box behind another object.
_MAX_OCCLUSION = 0.4
_MARGIN = 0.96


@dataclass(frozen=True)
class SceneLayout:
    """Parameters of B scenes; the second axis of the object fields is the slot (MAX_OBJECTS).

    Lengths are meters, angles radians. `room` holds the distances from the camera to the left, right and
    back walls and the height of the ceiling. `color`, `shape`, `floor` and `wall` index the
    vocabulary's tuples.
    """

    camera_height: Tensor  # (B,)
    pitch: Tensor  # (B,) downwards
    yaw: Tensor  # (B,)
    room: Tensor  # (B, 4)
    light: Tensor  # (B, 3) position
    floor: Tensor  # (B,) int64
    wall: Tensor  # (B,) int64
    surface: Tensor  # (B, 8) uniforms varying the tone, scale and phase of floor and walls
    exists: Tensor  # (B, K) bool
    shape: Tensor  # (B, K) int64
    color: Tensor  # (B, K) int64
    large: Tensor  # (B, K) bool
    striped: Tensor  # (B, K) bool
    position: Tensor  # (B, K, 2) x, z of the footprint's center
    radius: Tensor  # (B, K) of the sphere, cylinder or cone; half the side of the cube
    height: Tensor  # (B, K)
    angle: Tensor  # (B, K) of the cube about the vertical
    hsv: Tensor  # (B, K, 3) hue in degrees, saturation, value
    bounds: Tensor  # (B, K, 4) left, top, right, bottom in the image; the image is [-1, 1] x [-1, 1], y down
    phrase: Tensor  # (B, 16) uniforms that pick the caption's words

    def __len__(self) -> int:
        return self.pitch.shape[0]

    def __getitem__(self, index: slice | Tensor) -> SceneLayout:
        """The scenes `index` selects; an integer must be given as a slice, so that the batch axis stays."""
        return SceneLayout(**{field.name: getattr(self, field.name)[index] for field in fields(self)})


def sample_layouts(count: int, seed: int, start: int = 0) -> SceneLayout:
    """Scenes `start` ... `start + count - 1` of the endless sequence `seed` names.

    A scene depends on (seed, index) alone. Raises ValueError for a negative count, seed or start.
    """
    if min(count, seed, start) < 0:
        raise ValueError(f"count, seed and start must not be negative; got {count}, {seed} and {start}.")
    uniforms = np.empty((count, _UNIFORMS))
    for row in range(count):
        generator = np.random.Generator(np.random.Philox(key=[seed, start + row]))
        uniforms[row] = generator.random(_UNIFORMS)
    drawn = torch.from_numpy(uniforms)
    scene = drawn[:, :_SCENE_UNIFORMS]
    slots = drawn[:, _SCENE_UNIFORMS:].view(count, MAX_OBJECTS, _OBJECT_UNIFORMS + 2 * _CANDIDATES)

    camera_height = _between(scene[:, 0], 1.2, 1.8)
    pitch = torch.deg2rad(_between(scene[:, 1], 8.0, 22.0))
    yaw = torch.deg2rad(_between(scene[:, 2], -10.0, 10.0))
    room = torch.stack(
        (
            _between(scene[:, 3], 1.9, 3.4),
            _between(scene[:, 4], 1.9, 3.4),
            _between(scene[:, 5], 3.8, 7.5),
            _between(scene[:, 6], 2.5, 3.3),
        ),
        dim=1,
    )
    light = torch.stack((_between(scene[:, 7], -1.5, 1.5), room[:, 3] - 0.25, _between(scene[:, 8], -0.4, 2.2)), dim=1)
    # Some slots find no room, so slightly more are asked for: about 45% of the
    # scenes show one object, 20% three.
    wanted = 1 + (scene[:, 9] > 0.43).long() + (scene[:, 9] > 0.75).long()

    # Colors are drawn without replacement, so a caption's "red cube" is never ambiguous.
    color = scene[:, 10 : 10 + len(COLOR_HUES)].argsort(dim=1)[:, :MAX_OBJECTS]
    shape = (slots[..., 0] * len(SHAPES)).long()
    large = slots[..., 1] < 0.55
    # Height over distance; 0.785 of it is the share of the image's height.
    crowd = torch.where(wanted > 1, 0.52, 0.62)[:, None]
    share = torch.where(large, 0.34 + slots[..., 2] * (crowd - 0.34), _between(slots[..., 2], 0.18, 0.27))
    slimness = torch.stack(
        (
            torch.full_like(share, 0.5),
            torch.full_like(share, 0.5),
            _between(slots[..., 3], 0.30, 0.48),
            _between(slots[..., 3], 0.34, 0.50),
        ),
        dim=-1,
    )
    slimness = slimness.gather(-1, shape[..., None])[..., 0]
    # A cube seen on its corner is wider than the other solids of its height.
    share = share * torch.where(shape == SHAPES.index("cube"), 0.88, 1.0)
    hue = torch.tensor(list(COLOR_HUES.values()), dtype=torch.float64)[color] + _between(slots[..., 4], -4.0, 4.0)
    hsv = torch.stack((hue % 360, _between(slots[..., 5], 0.80, 0.95), _between(slots[..., 6], 0.82, 0.98)), dim=-1)

    candidates = slots[..., _OBJECT_UNIFORMS:].view(count, MAX_OBJECTS, _CANDIDATES, 2)
    exists, position, height, bounds = _place(
        candidates, share, slimness, shape, wanted, camera_height, pitch, yaw, room
    )
    layout = {
        "camera_height": camera_height,
        "pitch": pitch,
        "yaw": yaw,
        "room": room,
        "light": light,
        "floor": (scene[:, 20] * len(FLOORS)).long(),
        "wall": (scene[:, 21] * len(WALLS)).long(),
        "surface": scene[:, 22:30],
        "exists": exists,
        "shape": shape,
        "color": color,
        "large": large,
        "striped": slots[..., 7] < 0.2,
        "position": position,
        "radius": height * slimness,
        "height": height,
        "angle": slots[..., 8] * (math.pi / 2),
        "hsv": hsv,
        "bounds": bounds,
        "phrase": scene[:, 32:48],
    }
    return SceneLayout(**{k: v.float() if v.is_floating_point() else v for k, v in layout.items()})


def _between(uniform: Tensor, low: float, high: float) -> Tensor:
    return low + uniform * (high - low)


def _place(
    candidates: Tensor,
    share: Tensor,
    slimness: Tensor,
    shape: Tensor,
    wanted: Tensor,
    camera_height: Tensor,
    pitch: Tensor,
    yaw: Tensor,
    room: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The first acceptable candidate of every slot in turn: (exists, position, height, bounds).

    A slot none of whose candidates is acceptable stays empty. The first slot takes its least bad candidate
    instead, so that no scene is without an object.
    """
    count = len(share)
    column = (slice(None), None, None)
    nearest = camera_height / torch.tan(pitch + math.radians(FOV_DEGREES / 2)) + 0.35
    farthest = torch.minimum(room[:, 2] - 0.6, torch.full_like(nearest, 4.8))
    z = nearest[column] + candidates[..., 0] * (farthest - nearest)[column]
    x = (2 * candidates[..., 1] - 1) * (0.85 * HALF_VIEW) * z
    height = share[..., None] * z
    reach = height * slimness[..., None] * torch.where(shape == SHAPES.index("cube"), math.sqrt(2.0), 1.0)[..., None]
    bounds = project_bounds(x, z, reach, height, camera_height[column], pitch[column])

    excess = bounds.abs().amax(dim=-1) - _MARGIN
    cos, sin = torch.cos(yaw)[column], torch.sin(yaw)[column]
    room_x, room_z = x * cos + z * sin, z * cos - x * sin
    left, right, back, ceiling = (room[:, i][column] for i in range(4))
    for outside in (
        room_x + reach + 0.1 - right,
        -room_x + reach + 0.1 - left,
        room_z + reach + 0.1 - back,
        height + 0.6 - ceiling,
    ):
        excess = torch.maximum(excess, outside)

    rows = torch.arange(count)
    exists: list[Tensor] = []
    picks: list[Tensor] = []
    for slot in range(MAX_OBJECTS):
        bad = excess[:, slot].clamp_min(0.0)
        for other, pick in enumerate(picks):
            apart = torch.hypot(x[:, slot] - x[rows, other, pick][:, None], z[:, slot] - z[rows, other, pick][:, None])
            near = reach[:, slot] + reach[rows, other, pick][:, None] + 0.08
            hidden = _overlap(bounds[:, slot], bounds[rows, other, pick][:, None])
            clash = (apart < near) | (hidden > _MAX_OCCLUSION)
            bad = bad + (clash & exists[other][:, None])
        acceptable = bad <= 0
        # argmax gives the first acceptable candidate; the first slot falls back on the smallest excess.
        pick = acceptable.long().argmax(dim=1)
        if slot == 0:
            pick = torch.where(acceptable.any(dim=1), pick, bad.argmin(dim=1))
            exists.append(torch.ones(count, dtype=torch.bool))
        else:
            exists.append(acceptable.any(dim=1) & (wanted > slot))
        picks.append(pick)
    chosen = torch.stack(picks, dim=1)

    def take(values: Tensor) -> Tensor:
        return values.gather(2, chosen[..., None])[..., 0]

    position = torch.stack((take(x), take(z)), dim=-1)
    picked_bounds = torch.stack([take(bounds[..., i]) for i in range(4)], dim=-1)
    return torch.stack(exists, dim=1), position, take(height), picked_bounds


def project_bounds(x: Tensor, z: Tensor, reach: Tensor, height: Tensor, camera_height: Tensor, pitch: Tensor) -> Tensor:
    """Image bounds (..., 4) of upright boxes: left, top, right, bottom in [-1, 1] units of the half image."""
    cos, sin = torch.cos(pitch), torch.sin(pitch)
    across, down = [], []
    for side in (-1, 1):
        for far in (-1, 1):
            for top in (0, 1):
                dy, dz = top * height - camera_height, z + far * reach
                depth = (dz * cos - dy * sin).clamp_min(0.2)
                across.append((x + side * reach) / depth / HALF_VIEW)
                down.append(-(dy * cos + dz * sin) / depth / HALF_VIEW)
    u, v = torch.stack(across, dim=-1), torch.stack(down, dim=-1)
    return torch.stack((u.amin(-1), v.amin(-1), u.amax(-1), v.amax(-1)), dim=-1)


def _overlap(first: Tensor, second: Tensor) -> Tensor:
    """Area two image boxes share, as a share of the smaller one."""
    width = torch.minimum(first[..., 2], second[..., 2]) - torch.maximum(first[..., 0], second[..., 0])
    tall = torch.minimum(first[..., 3], second[..., 3]) - torch.maximum(first[..., 1], second[..., 1])
    shared = width.clamp_min(0.0) * tall.clamp_min(0.0)
    areas = [(box[..., 2] - box[..., 0]) * (box[..., 3] - box[..., 1]) for box in (first, second)]
    return shared / torch.minimum(areas[0], areas[1]).clamp_min(1e-6)
