"""Splats against the surfaces that they were made from, and their file against plyfile and the published layout."""

from io import BytesIO

import numpy as np
import pytest
import torch
from plyfile import PlyData
from scipy.spatial.transform import Rotation

from mforce.mforce_core.scene3d.point_cloud import camera_points, intrinsics_from_fov
from mforce.mforce_core.scene3d.splats import Splats, splats_of, to_ply

HEIGHT, WIDTH = 24, 32
CAMERA = intrinsics_from_fov(HEIGHT, WIDTH, 60.0)


def plane(normal):
    """Depth of a plane through (0, 0, 3)."""
    rays = camera_points(torch.ones(HEIGHT, WIDTH), CAMERA)
    normal = torch.tensor(normal)
    return (3.0 * normal[2]) / (rays @ normal)


def make(depth, **given):
    valid = depth > 0
    colors = torch.rand(HEIGHT, WIDTH, 3, generator=torch.Generator().manual_seed(0))
    return splats_of(depth, valid, CAMERA, colors, edge_threshold=1.0, **given), colors


@pytest.mark.parametrize("normal", [[0.0, 0.0, -1.0], [0.6, 0.0, -0.8], [-0.3, 0.5, -0.81]])
def test_splats_of_a_plane_lie_in_it_and_cover_it_evenly(normal):
    depth = plane(normal)
    splats, _ = make(depth)
    unit = torch.nn.functional.normalize(torch.tensor(normal), dim=0)
    torch.testing.assert_close(splats.positions, camera_points(depth, CAMERA).reshape(-1, 3))
    axes = torch.from_numpy(Rotation.from_quat(splats.rotations.numpy(), scalar_first=True).as_matrix()).float()
    assert (axes[:, :, 2] @ unit).abs().min() > 0.9999
    covariance = axes @ torch.diag_embed(splats.scales.square()) @ axes.mT
    # The plane's own footprint of a pixel: how the point moves with the pixel, by finite differences of the plane.
    points = camera_points(depth, CAMERA)
    right, down = points[1:-1, 2:] - points[1:-1, :-2], points[2:, 1:-1] - points[:-2, 1:-1]
    right, down = (step.reshape(-1, 3) / 2 for step in (right, down))
    wanted = 0.25 * (right[:, :, None] * right[:, None] + down[:, :, None] * down[:, None])
    inner = covariance.unflatten(0, (HEIGHT, WIDTH))[1:-1, 1:-1].flatten(0, 1)
    error = (inner - wanted).flatten(1).norm(dim=1) / wanted.flatten(1).norm(dim=1)
    assert error.max() < 0.02


def test_the_footprints_of_neighbors_add_up_to_an_even_surface():
    """Seen from the front, the splats' Gaussians sum to the same everywhere."""
    splats, _ = make(torch.full((HEIGHT, WIDTH), 3.0))
    pitch = float(splats.positions[1, 0] - splats.positions[0, 0])
    where = torch.rand(200, 2, generator=torch.Generator().manual_seed(1)) * 6 * pitch - 3 * pitch
    away = (where[:, None] - splats.positions[None, :, :2]) / splats.scales[0, 0]
    density = torch.exp(-0.5 * away.square().sum(-1)).sum(1)
    assert density.std() / density.mean() < 0.03


def test_grazing_and_jumping_pixels_do_not_become_needles():
    depth = plane([0.0, -0.999, -0.05])
    depth = torch.where((depth > 0) & (depth < 1e3), depth, torch.zeros_like(depth))
    splats, _ = make(depth)
    pixel = splats.positions[:, 2] / (float(CAMERA[0, 0]) * WIDTH)
    assert (splats.scales.amax(1) <= 0.5 * 8 * pixel * 1.001).all()
    assert splats.scales.isfinite().all()
    assert splats.scales.amin() > 0
    torch.testing.assert_close(splats.rotations.norm(dim=1), torch.ones(len(splats)))
    step = torch.full((HEIGHT, WIDTH), 1.0)
    step[:, WIDTH // 2 :] = 2.0
    colors = torch.zeros(HEIGHT, WIDTH, 3)
    kept = splats_of(step, step > 0, CAMERA, colors, edge_threshold=0.04)
    assert len(kept) == HEIGHT * (WIDTH - 2)
    with pytest.raises(ValueError, match="no pixel"):
        splats_of(step, step > 5, CAMERA, colors, edge_threshold=0.04)


def test_the_file_has_the_published_layout_and_numbers():
    splats, colors = make(plane([0.6, 0.0, -0.8]), size=2.0)
    vertices = PlyData.read(BytesIO(to_ply(splats)))["vertex"]
    # The list of attributes that the authors' own code writes, without view-dependent colors.
    assert [item.name for item in vertices.properties] == [
        "x", "y", "z", "nx", "ny", "nz", "f_dc_0", "f_dc_1", "f_dc_2", "opacity", "scale_0", "scale_1", "scale_2",
        "rot_0", "rot_1", "rot_2", "rot_3",
    ]  # fmt: skip
    assert {item.val_dtype for item in vertices.properties} == {"f4"}
    assert len(vertices.data) == HEIGHT * WIDTH

    def columns(*names):
        return np.stack([vertices[name] for name in names], 1)

    np.testing.assert_array_equal(columns("x", "y", "z"), splats.positions)
    np.testing.assert_allclose(np.exp(columns("scale_0", "scale_1", "scale_2")), splats.scales, rtol=1e-5)
    np.testing.assert_array_equal(columns("rot_0", "rot_1", "rot_2", "rot_3"), splats.rotations)
    np.testing.assert_allclose(1 / (1 + np.exp(-vertices["opacity"])), splats.opacities, rtol=1e-6)
    # SH2RGB of the authors: color = coefficient * C0 + 0.5.
    shown = columns("f_dc_0", "f_dc_1", "f_dc_2") * 0.28209479177387814 + 0.5
    np.testing.assert_allclose(shown, colors.reshape(-1, 3), atol=1e-6)
    assert isinstance(splats, Splats)
