"""Analytic ray intersections with the room and with the solids, without branches.

Every argument is a tensor that broadcasts against the rays. Directions are not normalized: the camera's rays
have unit z-depth, so the ray parameter of a hit *is* its depth.
"""

from __future__ import annotations

import torch
from torch import Tensor

MISS = 1e6
_START = 1e-3

Vector = tuple[Tensor, Tensor, Tensor]


def quadric(
    origin: Vector, ray: Vector, top: Tensor, cap: Tensor, a: Tensor, b: Tensor, c: Tensor
) -> tuple[Tensor, Tensor]:
    """First hit with x^2 + z^2 + a y^2 + 2 b y + c = 0 for 0 <= y <= top, under a disc of radius `cap`.

    Spheres (a=1, b=-r, c=0), cylinders (0, 0, -r^2) and cones standing on y = 0 are all of this form; none
    needs its lower disc, since light and camera are above the floor it stands on. Returns the ray parameter,
    MISS where there is no hit, and whether the hit is on the disc.
    """
    ox, oy, oz = origin
    dx, dy, dz = ray
    quadratic = dx * dx + dz * dz + a * dy * dy
    # A cone's quadratic term vanishes for rays parallel to its side.
    quadratic = torch.where(quadratic.abs() < 1e-7, 1e-7, quadratic)
    half = ox * dx + oz * dz + dy * (a * oy + b)
    constant = ox * ox + oz * oz + oy * (a * oy + 2 * b) + c
    discriminant = half * half - quadratic * constant
    root = discriminant.clamp_min(0.0).sqrt()
    inverse = 1.0 / quadratic
    first, second = (-half - root) * inverse, (-half + root) * inverse
    near, far = torch.minimum(first, second), torch.maximum(first, second)
    near_y, far_y = oy + near * dy, oy + far * dy
    real = discriminant > 0
    near = torch.where(real & (near > _START) & (near_y >= 0) & (near_y <= top), near, MISS)
    far = torch.where(real & (far > _START) & (far_y >= 0) & (far_y <= top), far, MISS)
    side = torch.minimum(near, far)

    disc = (top - oy) / torch.where(dy.abs() < 1e-7, 1e-7, dy)
    cap_x, cap_z = ox + disc * dx, oz + disc * dz
    disc = torch.where((disc > _START) & (cap_x * cap_x + cap_z * cap_z < cap * cap), disc, MISS)
    return torch.minimum(side, disc), disc < side


def box(origin: Vector, ray: Vector, half: Tensor, top: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """First hit with |x| <= half, |z| <= half, 0 <= y <= top for rays that start outside.

    Returns the ray parameter (MISS where there is no hit) then whether the hit is on an x face, on a y face.
    """
    ox, oy, oz = origin
    inverse_x, inverse_y, inverse_z = (1.0 / torch.where(d.abs() < 1e-7, 1e-7, d) for d in ray)
    middle_x, middle_y, middle_z = -ox * inverse_x, (0.5 * top - oy) * inverse_y, -oz * inverse_z
    reach_x, reach_y, reach_z = half * inverse_x.abs(), 0.5 * top * inverse_y.abs(), half * inverse_z.abs()
    enter_x, enter_y, enter_z = middle_x - reach_x, middle_y - reach_y, middle_z - reach_z
    enter = torch.maximum(torch.maximum(enter_x, enter_y), enter_z)
    leave = torch.minimum(torch.minimum(middle_x + reach_x, middle_y + reach_y), middle_z + reach_z)
    hit = (enter < leave) & (enter > _START)
    on_x = (enter_x >= enter_y) & (enter_x >= enter_z)
    return torch.where(hit, enter, MISS), on_x, ~on_x & (enter_y >= enter_z)


def room(
    origin: Vector, ray: Vector, left: Tensor, right: Tensor, back: Tensor, ceiling: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Where a ray from inside leaves the room, in the room's frame. The room has no wall at its front.

    Returns the ray parameter and whether the hit is on a side wall and on the floor or ceiling.
    """
    ox, oy, oz = origin
    dx, dy, dz = ray
    dx = torch.where(dx.abs() < 1e-7, 1e-7, dx)
    dy = torch.where(dy.abs() < 1e-7, 1e-7, dy)
    to_side = (torch.where(dx > 0, right, -left) - ox) / dx
    to_level = (torch.where(dy > 0, ceiling, 0.0) - oy) / dy
    to_back = torch.where(dz > 1e-7, (back - oz) / dz.clamp_min(1e-7), MISS)
    distance = torch.minimum(torch.minimum(to_side, to_level), to_back)
    on_level = to_level <= torch.minimum(to_side, to_back)
    return distance, ~on_level & (to_side < to_back), on_level
