"""The point cloud against the release's numbers, and the files read back by another library."""

import io
import json
import math
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from mforce.mforce_core.depth.edges import depth_edges, scaled_edge_threshold
from mforce.mforce_core.picture.color import to_linear
from mforce.mforce_core.release import EDGE_THRESHOLD
from mforce.mforce_core.scene3d.point_cloud import (
    PointCloud,
    camera_points,
    inliers,
    intrinsics_from_fov,
    merge,
    surface_normals,
    unproject,
)
from mforce.mforce_core.scene3d.point_cloud_files import read_ply, to_glb, to_ply
from mforce.mforce_core.scene3d.voxels import extent, thin

GOLDEN = Path(__file__).parent / "golden" / "functions" / "point_cloud.safetensors"


@pytest.fixture(scope="module")
def golden():
    return load_file(GOLDEN)


@pytest.fixture
def slope():
    """A smooth (12, 16) depth with nothing to leave out."""
    return torch.linspace(2.0, 2.5, 12)[:, None].repeat(1, 16)


def test_edges_valid_pixels_and_points_are_those_of_the_release(golden):
    depth = golden["depth"]
    assert torch.equal(depth_edges(depth), golden["edge_mask"])
    cloud = unproject(depth)
    assert torch.equal(cloud.pixels, golden["valid"].flatten().nonzero().squeeze(1))
    torch.testing.assert_close(cloud.points, golden["points"], rtol=0, atol=5e-7)


@pytest.mark.parametrize("side", [512, 513, 4096])
def test_large_pictures_have_the_edge_threshold_of_the_release(side):
    assert scaled_edge_threshold(side) == EDGE_THRESHOLD


def test_a_slanted_floor_is_no_edge_at_any_resolution():
    """Depth 1 / row, as of a floor: whole at 512 pixels, and with the scaled threshold at 128 too."""
    kept = []
    for side in (512, 128):
        below_horizon = (torch.arange(side) + 0.5) / side + 0.25
        floor = (1 / below_horizon)[:, None].repeat(1, side)
        kept.append((~depth_edges(floor, scaled_edge_threshold(side))).float().mean())
        coarse = (~depth_edges(floor)).float().mean()
    assert kept == [1, 1]
    assert coarse < 0.9


def test_outliers_are_those_of_the_release(golden):
    assert torch.equal(inliers(golden["points"]), golden["inlier"])
    cloud = unproject(golden["depth"], remove_outliers=True)
    torch.testing.assert_close(cloud.points, golden["points"][golden["inlier"]], rtol=0, atol=5e-7)


def test_missing_depth_has_no_point(slope):
    for row, value in enumerate([0.0, -1.0, math.nan, math.inf]):
        slope[3 * row, 0] = value
    pixels = unproject(slope, edge_threshold=None).pixels.tolist()
    assert len(pixels) == slope.numel() - 4
    assert not {3 * row * 16 for row in range(4)} & set(pixels)


def test_valid_mask_leaves_pixels_out(slope):
    valid = torch.ones(12, 16, dtype=torch.bool)
    valid[:, 8:] = False
    cloud = unproject(slope, valid=valid, edge_threshold=None)
    assert len(cloud) == 12 * 8
    assert cloud.points[:, 0].max() < 0


def test_axes_are_gltf():
    depth = torch.full((8, 8), 3.0)
    points = unproject(depth).points.reshape(8, 8, 3)
    top_left, bottom_right = points[0, 0], points[7, 7]
    assert top_left[0] < 0 < bottom_right[0]
    assert bottom_right[1] < 0 < top_left[1]
    assert (points[..., 2] == -3.0).all()


@settings(max_examples=25, deadline=None)
@given(fov=st.floats(10, 150), height=st.integers(2, 20), width=st.integers(2, 20))
def test_a_field_of_view_and_its_intrinsics_agree(fov, height, width):
    depth = torch.rand(height, width, generator=torch.Generator().manual_seed(0)) + 1
    by_fov = unproject(depth, fov_degrees=fov, edge_threshold=None).points
    matrix = intrinsics_from_fov(height, width, fov)
    by_matrix = unproject(depth, intrinsics=matrix, edge_threshold=None).points
    assert torch.equal(by_fov, by_matrix)
    # The outer border of the picture, half a pixel outside the last column, is at half the field of view.
    x, z = by_fov[width - 1, 0].double(), -by_fov[width - 1, 2].double()
    assert x / z * width / (width - 1) == pytest.approx(math.tan(math.radians(fov) / 2), rel=1e-5)


def test_camera_points_project_back_to_their_pixels(slope):
    matrix = intrinsics_from_fov(12, 16, 50.0)
    projected = camera_points(slope, matrix) @ matrix.T
    projected = projected[..., :2] / projected[..., 2:]
    assert torch.allclose(projected[0, :, 0], (torch.arange(16) + 0.5) / 16)
    assert torch.allclose(projected[:, 0, 1], (torch.arange(12) + 0.5) / 12)


def test_limit_is_repeatable_and_keeps_the_order(slope):
    first, second = (unproject(slope, max_points=50) for _ in range(2))
    assert len(first) == 50
    assert torch.equal(first.points, second.points)
    assert (first.pixels.diff() > 0).all()


def test_centered_cloud_has_its_median_at_the_origin(golden):
    cloud = unproject(golden["depth"]).centered()
    assert cloud.points.median(dim=0).values.abs().max() == 0
    shift = golden["points"] - cloud.points
    assert shift.std(dim=0).max() < 1e-6


@pytest.mark.parametrize("as_bytes", [True, False])
def test_colors_follow_their_pixels(slope, as_bytes):
    rgb = torch.randint(0, 256, (12, 16, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    slope[5, 5] = math.nan
    cloud = unproject(slope, rgb=rgb if as_bytes else rgb.float() / 255)
    assert 0 < len(cloud) < slope.numel()
    assert torch.equal(cloud.colors, rgb.reshape(-1, 3)[cloud.pixels])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"depth": torch.ones(1, 4, 4)}, "one map at a time"),
        ({"depth": torch.zeros(4, 4)}, "no pixel to make a point of"),
        ({"rgb": torch.zeros(4, 5, 3)}, r"rgb must have shape \(4, 4, 3\)"),
        ({"valid": torch.ones(3, 4)}, r"valid must have shape \(4, 4\)"),
        ({"fov_degrees": 180.0}, "between 0 and 180"),
        ({"fov_degrees": math.nan}, "between 0 and 180"),
        ({"edge_threshold": -1.0}, "zero or more"),
        ({"intrinsics": torch.eye(4)}, r"shape \(3, 3\)"),
        ({"intrinsics": torch.zeros(3, 3)}, "positive focal lengths"),
        ({"intrinsics": torch.tensor([[500.0, 0, 320], [0, 500, 240], [0, 0, 1]])}, "in pixels"),
    ],
)
def test_bad_input_is_named(arguments, message):
    arguments = {"depth": torch.ones(4, 4), **arguments}
    with pytest.raises(ValueError, match=message):
        unproject(arguments.pop("depth"), **arguments)


def test_a_cloud_too_small_for_statistics_is_kept():
    assert inliers(torch.rand(4, 3)).all()


@pytest.mark.parametrize(("write", "kind"), [(to_ply, "ply"), (to_glb, "glb")])
@pytest.mark.parametrize("colored", [True, False])
def test_files_read_back(write, kind, colored, slope):
    trimesh = pytest.importorskip("trimesh")
    rgb = torch.randint(0, 256, (12, 16, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(2))
    cloud = unproject(slope, rgb=rgb if colored else None).centered()
    data = write(cloud)
    assert data == write(cloud)
    read = trimesh.load(io.BytesIO(data), file_type=kind)
    if kind == "glb":
        (read,) = read.geometry.values()
    np.testing.assert_array_equal(np.asarray(read.vertices, dtype=np.float32), cloud.points.numpy())
    if colored and kind == "ply":
        np.testing.assert_array_equal(np.asarray(read.colors)[:, :3], cloud.colors.numpy())
    elif colored:
        expected = np.round(to_linear(cloud.colors / 255).numpy() * 255)
        assert np.abs(np.asarray(read.colors)[:, :3] - expected).max() <= 1


def test_a_glb_says_its_length_and_the_bounds_of_its_points(cloud):
    """glTF 2.0, 4.4 and 3.6.2.5; the readers that these tests use believe neither, and strict ones refuse the file."""
    for points in (cloud, cloud.select(torch.arange(3))):
        data = to_glb(points)
        magic, version, length, size, kind = struct.unpack_from("<4sIII4s", data)
        assert (magic, version, length, kind) == (b"glTF", 2, len(data), b"JSON")
        start, last = struct.unpack_from("<I4s", data, 20 + size), 28 + size
        assert start == (len(data) - last, b"BIN\0")
        assert size % 4 == (len(data) - last) % 4 == 0
        position = json.loads(data[20 : 20 + size])["accessors"][0]
        assert position["min"] == points.points.min(0).values.tolist()
        assert position["max"] == points.points.max(0).values.tolist()


def test_a_glb_says_where_its_points_were(slope):
    pygltflib = pytest.importorskip("pygltflib")
    cloud = unproject(slope)
    (node,) = pygltflib.GLTF2.load_from_bytes(to_glb(cloud.centered())).nodes
    moved = cloud.centered().points + torch.tensor(node.extras["mforce_offset"])
    torch.testing.assert_close(moved, cloud.points, rtol=0, atol=1e-6)
    (node,) = pygltflib.GLTF2.load_from_bytes(to_glb(cloud)).nodes
    assert not node.extras


def test_colors_of_a_glb_are_linear():
    """glTF 2.0, 3.9.2: COLOR_0 is linear; sRGB 128 is 0.2158605 in linear light."""
    trimesh = pytest.importorskip("trimesh")
    gray = torch.tensor([[0, 1, 10], [128, 128, 128], [255, 100, 54]], dtype=torch.uint8)
    data = to_glb(PointCloud(torch.rand(3, 3), gray, None))
    (read,) = trimesh.load(io.BytesIO(data), file_type="glb").geometry.values()
    assert read.colors[1].tolist() == [55, 55, 55, 255]
    assert read.colors[0, 0] == 0
    assert read.colors[2, 0] == 255


@pytest.mark.parametrize("name", ["float_0_255", "names_r_g_b"])
def test_colors_of_other_programs(name):
    data = (Path(__file__).parent / "cases" / "05_ply_colours" / f"{name}.ply").read_bytes()
    assert (read_ply(data).colors == torch.tensor([255, 100, 10], dtype=torch.uint8)).all()


@pytest.mark.parametrize(
    "names", ["red green blue", "r g b", "diffuse_red diffuse_green diffuse_blue", "Red Green Blue"]
)
@pytest.mark.parametrize(
    ("kind", "white"), [("uchar", 255), ("float", 1), ("float", 255), ("int", 255), ("ushort", 65535), ("double", 1)]
)
def test_colors_by_every_name_and_kind(names, kind, white):
    rows = [[255, 100, 10], [0, 51, 204]]
    body = "".join("0 0 0 {} {} {}\n".format(*(value * white / 255 for value in row)) for row in rows)
    body = body.replace(".0 ", " ").replace(".0\n", "\n") if kind != "ushort" else body
    properties = ("float x", "float y", "float z", *(f"{kind} {name}" for name in names.split()))
    assert read_ply(_ply(body, 2, properties=properties)).colors.tolist() == rows


def test_a_selection_keeps_points_and_pixels_together():
    cloud = PointCloud(torch.arange(6.0).reshape(2, 3), None, torch.tensor([4, 9]))
    chosen = cloud.select(torch.tensor([False, True]))
    assert chosen.pixels.tolist() == [9]
    assert chosen.points.tolist() == [[3.0, 4.0, 5.0]]


@pytest.fixture
def cloud():
    """1000 points with colors and normals, of no picture."""
    generator = torch.Generator().manual_seed(5)
    points = torch.randn(1000, 3, generator=generator)
    colors = torch.randint(0, 256, (1000, 3), dtype=torch.uint8, generator=generator)
    return PointCloud(points, colors, None, torch.nn.functional.normalize(points, dim=1))


def test_normals_of_planes_are_exact_and_face_the_camera():
    matrix = intrinsics_from_fov(20, 30, 60.0)
    rays = camera_points(torch.ones(20, 30), matrix)
    for plane in ([0.1, 0.2, -1.0], [-0.5, 0.3, -1.0], [0.0, -0.5, -1.0]):
        normal = torch.nn.functional.normalize(torch.tensor(plane), dim=0)
        depth = -2.0 / (rays @ normal)  # of the plane normal . point = -2
        seen = depth > 0
        found = surface_normals(depth, matrix, valid=seen)[seen]
        assert seen.float().mean() > 0.5
        torch.testing.assert_close(found, normal.expand_as(found), rtol=0, atol=2e-4)


def test_normals_of_a_ball_point_out_of_it_and_do_not_mix_it_with_the_wall():
    matrix = intrinsics_from_fov(64, 64, 50.0)
    rays = camera_points(torch.ones(64, 64), matrix)
    middle = torch.tensor([0.1, -0.1, 4.0])
    a, b, c = rays.square().sum(-1), rays @ middle, middle.square().sum() - 1.0
    hit = b * b > a * c
    depth = torch.where(hit, (b - (b * b - a * c).clamp(min=0).sqrt()) / a, torch.full_like(a, 8.0))
    normals = surface_normals(depth, matrix, edge_threshold=0.1)
    torch.testing.assert_close(normals[~hit], torch.tensor([0.0, 0.0, -1.0]).expand(int((~hit).sum()), 3))
    wanted = rays * depth[..., None] - middle
    facing = -(wanted * torch.nn.functional.normalize(rays, dim=-1)).sum(-1)
    cosine = (normals * wanted).sum(-1)
    assert cosine[hit & (facing > 0.4)].min() > 0.99
    cloud = unproject(depth, intrinsics=matrix, normals=normals, edge_threshold=None)
    assert (cloud.normals[:, 2] > 0).all()


def test_a_ply_with_normals_reads_back_here_and_in_trimesh(cloud):
    trimesh = pytest.importorskip("trimesh")
    data = to_ply(cloud)
    ours = read_ply(data)
    for name in ("points", "colors", "normals"):
        assert torch.equal(getattr(ours, name), getattr(cloud, name))
    raw = trimesh.load(io.BytesIO(data), file_type="ply")
    np.testing.assert_array_equal(np.asarray(raw.vertices, dtype=np.float32), cloud.points.numpy())
    fields = raw.metadata["_ply_raw"]["vertex"]["data"]
    np.testing.assert_array_equal(np.stack([fields[name] for name in ("nx", "ny", "nz")], 1), cloud.normals.numpy())


@pytest.mark.parametrize("encoding", ["binary", "ascii"])
def test_plys_of_trimesh_are_read(encoding, cloud):
    trimesh = pytest.importorskip("trimesh")
    mesh = trimesh.creation.icosphere(subdivisions=1)
    mesh.visual.vertex_colors = cloud.colors[: len(mesh.vertices)].numpy()
    read = read_ply(mesh.export(file_type="ply", encoding=encoding, vertex_normal=True))
    np.testing.assert_allclose(read.points.numpy(), mesh.vertices, atol=1e-6)
    np.testing.assert_allclose(read.normals.numpy(), mesh.vertex_normals, atol=1e-5)
    assert torch.equal(read.colors, cloud.colors[: len(mesh.vertices)])


def test_other_flavours_of_ply_are_read():
    header = "ply\r\nformat binary_big_endian 1.0\r\ncomment hello\r\nelement camera 1\r\nproperty int8 tag\r\n"
    header += "element vertex 2\r\nproperty float64 x\r\nproperty double y\r\nproperty ushort red\r\n"
    header += "property double z\r\nproperty ushort green\r\nproperty ushort blue\r\nend_header\r\n"
    kinds = [("x", ">f8"), ("y", ">f8"), ("red", ">u2"), ("z", ">f8"), ("green", ">u2"), ("blue", ">u2")]
    rows = np.array([(1.0, 2.0, 65535, 3.0, 0, 32896), (math.nan, 0.0, 0, 0.0, 0, 0)], dtype=kinds)
    read = read_ply(header.encode() + b"\x07" + rows.tobytes())
    assert read.points.tolist() == [[1.0, 2.0, 3.0]]
    assert read.colors.tolist() == [[255, 0, 128]]


def test_text_before_the_vertices_is_passed_over():
    data = b"ply\nformat ascii 1.0\nelement camera 2\nproperty float x\nproperty list uchar int y\nelement vertex 1\n"
    data += b"property float x\nproperty float y\nproperty float z\nend_header\n7 1 5\n8 2 5 6\n1 2 3\n"
    assert read_ply(data).points.tolist() == [[1.0, 2.0, 3.0]]


def _ply(body="0 0 0\n", count=1, kind="ascii", properties=("float x", "float y", "float z")):
    lines = ["ply", f"format {kind} 1.0", f"element vertex {count}", *(f"property {line}" for line in properties)]
    return "\n".join([*lines, "end_header", body]).encode()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"solid stl", "not a PLY file"),
        (_ply(kind="binary_middle_endian"), "means nothing"),
        (_ply("0 0\n", properties=("float x", "float y")), "no x, y and z"),
        (_ply(properties=("float x", "list uchar int y", "float z")), "lists"),
        (_ply(properties=("float x", "float128 y", "float z")), "unknown type float128"),
        (_ply(count=3), "does not have 3 vertices"),
        (_ply(body="0 zero 0\n"), "not all numbers"),
        (_ply(count=3, kind="binary_little_endian"), "ends before its 3 vertices"),
        (b"ply\nformat ascii 1.0\nelement face 0\nend_header\n", "no vertices"),
    ],
)
def test_a_bad_ply_is_named(data, message):
    with pytest.raises(ValueError, match=message):
        read_ply(data)


def test_a_voxel_keeps_the_mean_of_its_points(cloud):
    size = 0.5
    thinner = thin(cloud, size)
    # The same by hand, one cube after the other.
    low = cloud.points.min(dim=0).values
    cubes = {}
    for index, cell in enumerate(((cloud.points - low) / size).floor().int().tolist()):
        cubes.setdefault(tuple(cell), []).append(index)
    assert len(thinner) == len(cubes) < len(cloud)
    for row, cell in enumerate(sorted(cubes)):
        members = cubes[cell]
        torch.testing.assert_close(thinner.points[row], cloud.points[members].mean(0), rtol=0, atol=1e-5)
        assert (thinner.colors[row].float() - cloud.colors[members].float().mean(0)).abs().max() <= 0.5001
        direction = cloud.normals[members].mean(0)
        torch.testing.assert_close(thinner.normals[row], direction / direction.norm(), rtol=0, atol=1e-4)
    assert extent(thinner) <= extent(cloud)


@pytest.mark.parametrize(("size", "message"), [(0.0, "more than 0"), (1e-9, "too small for a cloud")])
def test_bad_voxel_sizes_are_named(size, message, cloud):
    with pytest.raises(ValueError, match=message):
        thin(cloud, size)


def test_merging_keeps_what_all_clouds_have(cloud):
    plain = PointCloud(cloud.points[:3], cloud.colors[:3], None)
    both = merge([cloud, plain])
    assert len(both) == len(cloud) + 3
    assert torch.equal(both.points[-3:], cloud.points[:3])
    assert torch.equal(both.colors[:1000], cloud.colors)
    assert both.normals is None
    assert torch.equal(merge([cloud]).normals, cloud.normals)
