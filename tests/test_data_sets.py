"""Data sets in the layouts in which they are distributed, written here by hand: every reader against what was drawn."""

import csv
import io
import json
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.spatial.transform import Rotation
from typer.testing import CliRunner

from mforce.cli.app import app
from mforce.training.data.convert import convert
from mforce.training.data.layouts import aria
from mforce.training.data.layouts.registry import DATA_SETS
from mforce.training.data.sample import Sample
from mforce.training.data.shards import find_shards

HEIGHT, WIDTH = 24, 32
DOCS = Path(__file__).parent.parent / "docs" / "data-sets.md"


def picture(seed: int = 0, size: tuple[int, int] = (HEIGHT, WIDTH)) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)


def meters(seed: int = 0, size: tuple[int, int] = (HEIGHT, WIDTH)) -> np.ndarray:
    """Planar depth in whole millimeters that are multiples of 1/512 m too."""
    return np.random.default_rng(seed).integers(4, 64, size).astype(np.float32) / 8


def save(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".npy":
        np.save(path, array)
    else:
        Image.fromarray(array).save(path, quality=95)


def save_hdf5(path: Path, name: str, array: np.ndarray) -> None:
    h5py = pytest.importorskip("h5py")
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        file[name] = array


def converted(name: str, root: Path, out: Path, every: int = 1) -> dict[str, Sample]:
    """By way of the shards, as every command reads them."""
    assert not [entry for shard in convert(name, root, out, every) for entry in shard.broken]
    return {record.key: record.decode() for shard in find_shards([str(out)]) for record in shard.records()}


def alone(samples: dict[str, Sample]) -> Sample:
    (sample,) = samples.values()
    return sample


def agree(sample: Sample, depth: np.ndarray, kind: str = "metric") -> None:
    assert sample.kind == kind
    np.testing.assert_allclose(sample.depth, depth, rtol=2e-6)


# Hypersim


def write_hypersim(root: Path, distance: np.ndarray, scene: str = "ai_001_002") -> None:
    images = root / scene / "images"
    save(images / "scene_cam_00_final_preview" / "frame.0003.tonemap.jpg", picture(size=distance.shape))
    save(images / "scene_cam_00_final_preview" / "frame.0003.diff.jpg", picture(size=distance.shape))
    file = images / "scene_cam_00_geometry_hdf5" / "frame.0003.depth_meters.hdf5"
    save_hdf5(file, "dataset", distance.astype(np.float16))


def test_hypersim_is_planar(tmp_path: Path) -> None:
    """A wall at 2 m: its distances by Pythagoras with the documented focal length, at the data set's own size."""
    y, x = np.mgrid[:768, :1024]
    focal = 886.81
    distance = 2 * np.sqrt((x - 511.5) ** 2 + (y - 383.5) ** 2 + focal**2) / focal
    distance[0, 0] = np.nan
    write_hypersim(tmp_path / "in", distance)
    samples = converted("hypersim", tmp_path / "in", tmp_path / "out")
    assert list(samples) == ["ai_001_002/images/scene_cam_00_final_preview/frame_0003_tonemap"]
    depth = alone(samples).depth
    assert np.isnan(depth[0, 0])
    np.testing.assert_allclose(depth[1:], 2, rtol=1e-3)  # float16
    assert distance[-1, -1] / 2 > 1.2  # without the conversion it would be far off


def test_hypersim_uses_the_camera_of_a_scene(tmp_path: Path) -> None:
    """A shifted lens: the rays are those of the matrix, here of half the angle and off the axis."""
    matrix = np.array([[0.3, 0, 0.1], [0, 0.2, -0.05], [0, 0, -1.0]])
    names = [f"M_cam_from_uv_{row}{column}" for row in range(3) for column in range(3)]
    (tmp_path / "in").mkdir()
    with (tmp_path / "in" / "metadata_camera_parameters.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["scene_name", *names])
        writer.writerow(["ai_001_002", *matrix.ravel()])
    x = 0.3 * ((np.arange(WIDTH) + 0.5) / WIDTH * 2 - 1) + 0.1
    y = 0.2 * (1 - (np.arange(HEIGHT) + 0.5) / HEIGHT * 2) - 0.05
    write_hypersim(tmp_path / "in", 3 * np.sqrt(1 + x[None] ** 2 + y[:, None] ** 2))
    sample = alone(converted("hypersim", tmp_path / "in", tmp_path / "out"))
    np.testing.assert_allclose(sample.depth, 3, rtol=1e-3)


# The others


@pytest.mark.parametrize(
    ("image", "depth"),
    [
        ("rgb/allensville/{}_rgb.png", "depth_zbuffer/allensville/{}_depth_zbuffer.png"),
        ("rgb/taskonomy/allensville/{}_rgb.png", "depth_zbuffer/taskonomy/allensville/{}_depth_zbuffer.png"),
        ("allensville/rgb/{}_rgb.png", "allensville/depth_zbuffer/{}_depth_zbuffer.png"),
        ("allensville_rgb/rgb/{}_rgb.png", "allensville_depth_zbuffer/depth_zbuffer/{}_depth_zbuffer.png"),
    ],
)
def test_taskonomy(tmp_path: Path, image: str, depth: str) -> None:
    stored = (meters() * 512).astype(np.uint16)
    stored[2, 3] = 65535
    for path, array in ((image, picture()), (depth, stored)):
        save(tmp_path / "in" / path.format("point_1_view_2_domain"), array)
    sample = alone(converted("taskonomy", tmp_path / "in", tmp_path / "out"))
    wanted = meters()
    wanted[2, 3] = np.nan
    agree(sample, wanted)
    np.testing.assert_array_equal(sample.image, picture())


def test_tartanair(tmp_path: Path) -> None:
    depth = meters() + np.float32(0.123)
    depth[0, :3] = 65504.0
    bgra = depth.astype("<f4").view(np.uint8).reshape(HEIGHT, WIDTH, 4)  # what OpenCV's imwrite is given
    for camera in ("lcam_front", "rcam_left", "lcam_fish", "rcam_equirect"):  # no pinhole took the last two
        folder = tmp_path / "in" / "AbandonedFactory" / "Data_easy" / "P001"
        save(folder / f"image_{camera}" / f"000007_{camera}.png", picture())
        save(folder / f"depth_{camera}" / f"000007_{camera}_depth.png", bgra[..., [2, 1, 0, 3]])
    samples = converted("tartanair", tmp_path / "in", tmp_path / "out")
    assert [key.rsplit("/", 1)[1] for key in samples] == ["000007_lcam_front", "000007_rcam_left"]
    depth[0, :3] = np.nan
    for sample in samples.values():
        np.testing.assert_array_equal(sample.depth, depth)
        assert sample.kind == "metric"


def test_blendedmvs(tmp_path: Path) -> None:
    scene = tmp_path / "in" / "5a3ca9cb270f0e3f14d0eddb"
    depth = meters()
    depth[5, 5] = 0
    for name in ("00000003.jpg", "00000003_masked.jpg"):
        save(scene / "blended_images" / name, picture())
    (scene / "rendered_depth_maps").mkdir()
    with (scene / "rendered_depth_maps" / "00000003.pfm").open("wb") as file:
        file.write(f"Pf\n{WIDTH} {HEIGHT}\n-1.0\n".encode() + depth[::-1].astype("<f4").tobytes())
    agree(
        alone(converted("blendedmvs", tmp_path / "in", tmp_path / "out")),
        np.where(depth > 0, depth, np.nan),
        "relative",
    )


def test_megadepth(tmp_path: Path) -> None:
    dense = tmp_path / "in" / "0022" / "dense0"
    for name, depth in (("a", meters()), ("b", np.where(meters() > 3, -1.0, 0.0))):
        save(dense / "imgs" / f"{name}.jpg", picture())
        save_hdf5(dense / "depths" / f"{name}.h5", "depth", depth)
    (shard,) = convert("megadepth", tmp_path / "in", tmp_path / "out")
    assert (shard.written, [entry.key for entry in shard.broken]) == (1, ["0022/dense0/imgs/b"])
    assert "ordinal" in shard.broken[0].reason
    (record,) = find_shards([str(tmp_path / "out")])[0].records()
    agree(record.decode(), meters(), "relative")


def test_foundation_stereo(tmp_path: Path) -> None:
    left = tmp_path / "in" / "kitchen_1" / "dataset" / "data" / "left"
    disparity = np.random.default_rng(1).integers(1, 200_000, (HEIGHT, WIDTH))
    stored = np.stack([disparity // 65025, disparity % 65025 // 255, disparity % 255], axis=-1).astype(np.uint8)
    stored[1, 1] = 0
    save(left / "rgb" / "0000.jpg", picture())
    save(left / "disparity" / "0000.png", stored)
    wanted = 1000 / disparity.astype(np.float64)
    wanted[1, 1] = np.nan
    sample = alone(converted("foundationstereo", tmp_path / "in", tmp_path / "out"))
    assert sample.kind == "disparity"
    ratio = sample.depth / wanted  # known up to a factor
    np.testing.assert_allclose(ratio[np.isfinite(ratio)], np.nanmedian(ratio), rtol=1e-5)
    assert np.isnan(sample.depth[1, 1])


def test_parallel_domain(tmp_path: Path) -> None:
    scene = tmp_path / "in" / "scene_000003"
    depth = meters()
    depth[0] = 1000
    rgba = np.dstack([picture(), np.zeros((HEIGHT, WIDTH), np.uint8)])
    save(scene / "rgb" / "camera0" / "000000000000000005.png", rgba)
    (scene / "depth" / "camera0").mkdir(parents=True)
    np.savez_compressed(scene / "depth" / "camera0" / "000000000000000005.npz", data=depth)
    depth[0] = np.nan
    sample = alone(converted("paralleldomain", tmp_path / "in", tmp_path / "out"))
    agree(sample, depth)
    np.testing.assert_array_equal(sample.image, picture())


@pytest.mark.parametrize("sky", ["Up", "Left", "Right", "Down"])
def test_arkitscenes_is_turned_upright(tmp_path: Path, sky: str) -> None:
    """The upright picture is turned so that its upper edge lies where the table says that the sky is."""
    upright = (HEIGHT, WIDTH) if sky in ("Up", "Down") else (WIDTH, HEIGHT)
    turn = {"Up": 0, "Left": 1, "Down": 2, "Right": 3}[sky]  # the upper edge goes left by a turn counterclockwise
    image, depth = np.rot90(picture(size=upright), turn), np.rot90(meters(size=upright), turn)
    video = tmp_path / "in" / "raw" / "Training" / "40753679"
    save(video / "lowres_depth" / "40753679_6791.123.png", (depth * 1000).astype(np.uint16))
    save(video / "lowres_wide" / "40753679_6791.119.png", np.ascontiguousarray(image))
    save(video / "lowres_wide" / "40753679_6791.182.png", picture(3))
    save(video / "lowres_depth" / "40753679_6792.500.png", (depth * 1000).astype(np.uint16))  # no picture near
    with (tmp_path / "in" / "raw" / "metadata.csv").open("w") as file:
        file.write(f"video_id,visit_id,fold,sky_direction\n40753679,1,Training,{sky}\n")
    sample = alone(converted("arkitscenes", tmp_path / "in", tmp_path / "out"))
    agree(sample, meters(size=upright))
    np.testing.assert_array_equal(sample.image, picture(size=upright))


def test_arkitscenes_upsampling_takes_the_laser_scan(tmp_path: Path) -> None:
    video = tmp_path / "in" / "40753679"
    name = "40753679_6791.123.png"
    save(video / "lowres_depth" / name, (meters(5) * 1000).astype(np.uint16))
    save(video / "highres_depth" / name, (meters() * 1000).astype(np.uint16))
    save(video / "wide" / name, picture())
    save(video / "lowres_wide" / name, picture(5))
    sample = alone(converted("arkitscenes", tmp_path / "in", tmp_path / "out"))
    agree(sample, meters())
    np.testing.assert_array_equal(sample.image, picture())


def write_sens(path: Path, frames: list[tuple[np.ndarray, np.ndarray]], color: np.ndarray, depth: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    identity = struct.pack("<16f", *np.eye(4).ravel())
    name = b"StructureSensor"
    height, width = frames[0][0].shape[:2]
    rows, columns = frames[0][1].shape
    with path.open("wb") as file:
        file.write(struct.pack("<IQ", 4, len(name)) + name)
        for matrix in (color, depth):
            file.write(struct.pack("<16f", *matrix.ravel()) + identity)
        file.write(struct.pack("<iiIIIIfQ", 2, 1, width, height, columns, rows, 1000.0, len(frames)))
        for number, (image, values) in enumerate(frames):
            jpeg = io.BytesIO()
            Image.fromarray(image).save(jpeg, "jpeg", quality=98, subsampling=0)
            packed = zlib.compress(values.astype("<u2").tobytes())
            file.write(identity + struct.pack("<QQQQ", number, number, len(jpeg.getvalue()), len(packed)))
            file.write(jpeg.getvalue() + packed)


def test_scannet_resamples_color_onto_depth(tmp_path: Path) -> None:
    """A ramp over the color picture, twice as fine and shifted: at a pixel of depth it has the value of its ray."""
    color, depth = np.eye(4), np.eye(4)
    color[:2, :3], depth[:2, :3] = [[64, 0, 40], [0, 64, 30]], [[32, 0, 15.5], [0, 32, 11.5]]
    x = np.arange(84)
    image = np.repeat(np.repeat((x * 2.0)[None], 64, 0)[..., None], 3, 2).round().astype(np.uint8)
    values = (meters() * 1000).astype(np.uint16)
    values[0, 0] = 0
    write_sens(tmp_path / "in" / "scans" / "scene0000_00" / "scene0000_00.sens", [(image, values)] * 5, color, depth)
    samples = converted("scannet", tmp_path / "in", tmp_path / "out", every=2)
    assert list(samples) == [f"scans/scene0000_00/scene0000_00/00000{n}" for n in (0, 2, 4)]
    wanted = meters()
    wanted[0, 0] = np.nan
    in_color = (np.arange(WIDTH) - 15.5) / 32 * 64 + 40
    for sample in samples.values():
        agree(sample, wanted)
        np.testing.assert_allclose(sample.image[12, :, 0], in_color * 2, atol=2.5)


def test_shards_of_other_frames_are_not_kept(tmp_path: Path) -> None:
    values = (meters() * 1000).astype(np.uint16)
    write_sens(tmp_path / "in" / "a.sens", [(picture(), values)] * 4, np.eye(4), np.eye(4))
    arguments = ("scannet", tmp_path / "in", tmp_path / "out")
    assert [shard.kept for shard in convert(*arguments)] == [False]
    assert [shard.kept for shard in convert(*arguments)] == [True]
    with pytest.raises(ValueError, match="made of other frames"):
        list(convert(*arguments, every=2))
    (tmp_path / "out" / "scannet.json").unlink()  # as earlier versions left it
    assert [shard.kept for shard in convert(*arguments)] == [True]


def test_a_sens_file_that_is_cut_short_is_said(tmp_path: Path) -> None:
    path = tmp_path / "in" / "a.sens"
    write_sens(path, [(picture(), (meters() * 1000).astype(np.uint16))], np.eye(4), np.eye(4))
    path.write_bytes(path.read_bytes()[:120])
    with pytest.raises(ValueError, match="cut short"):
        list(convert("scannet", tmp_path / "in", tmp_path / "out"))
    path.write_bytes(b"no" * 100)
    with pytest.raises(ValueError, match=r"no \.sens file"):
        list(convert("scannet", tmp_path / "in", tmp_path / "out"))


def write_feather(path: Path, **columns: object) -> None:
    pyarrow, feather = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.feather")
    path.parent.mkdir(parents=True, exist_ok=True)
    feather.write_feather(pyarrow.table(columns), path)


def test_argoverse_projects_points_and_moves_them_with_the_vehicle(tmp_path: Path) -> None:
    """Points placed at known pixels and depths of the camera, taken to the vehicle's frame of an earlier moment."""
    log = tmp_path / "in" / "train" / "0000a0e0"
    rng = np.random.default_rng(0)
    pixels = rng.uniform(1, (WIDTH - 1, HEIGHT - 1), (40, 2))
    depth = rng.uniform(2, 50, 40)
    fx, fy, cx, cy = 40.0, 42.0, 15.0, 12.0
    in_camera = np.column_stack([(pixels[:, 0] - cx) / fx, (pixels[:, 1] - cy) / fy, np.ones(40)]) * depth[:, None]
    in_camera = np.concatenate([in_camera, [[0, 0, -5.0], [1e4, 0, 10.0]]])  # behind, and beside the picture

    def pose(angles: tuple[float, float, float], place: tuple[float, float, float]) -> np.ndarray:
        found = np.eye(4)
        found[:3, :3], found[:3, 3] = Rotation.from_euler("xyz", angles, degrees=True).as_matrix(), place
        return found

    camera, before, now = (
        pose((-90, 0, -90), (1.5, 0.1, 1.4)),
        pose((0, 0, 30), (10, 20, 1)),
        pose((1, 2, 33), (11, 21, 1)),
    )
    city = now @ camera @ np.column_stack([in_camera, np.ones(len(in_camera))]).T
    points = (np.linalg.inv(before) @ city)[:3].T
    sweep, picture_time = 315966070522000000, 315966070530000000

    def columns(poses: list[np.ndarray]) -> dict[str, np.ndarray]:
        quaternions = Rotation.from_matrix([p[:3, :3] for p in poses]).as_quat()
        named = dict(zip(("qx", "qy", "qz", "qw"), quaternions.T, strict=True))
        return named | {f"t{axis}_m": np.array([p[n, 3] for p in poses]) for n, axis in enumerate("xyz")}

    save(log / "sensors" / "cameras" / "ring_front_center" / f"{picture_time}.jpg", picture())
    save(log / "sensors" / "cameras" / "ring_front_center" / f"{picture_time + 10**9}.jpg", picture())  # no sweep near
    write_feather(log / "sensors" / "lidar" / f"{sweep}.feather", x=points[:, 0], y=points[:, 1], z=points[:, 2])
    names = ["ring_front_center", "ring_rear_left"]
    inside = {"fx_px": fx, "fy_px": fy, "cx_px": cx, "cy_px": cy, "k1": 0.1, "height_px": HEIGHT, "width_px": WIDTH}
    write_feather(
        log / "calibration" / "intrinsics.feather", sensor_name=names, **{k: [v, v] for k, v in inside.items()}
    )
    write_feather(
        log / "calibration" / "egovehicle_SE3_sensor.feather", sensor_name=names, **columns([camera, np.eye(4)])
    )
    write_feather(
        log / "city_SE3_egovehicle.feather",
        timestamp_ns=np.array([sweep, picture_time], dtype=np.int64),
        **columns([before, now]),
    )
    sample = alone(converted("argoverse2", tmp_path / "in", tmp_path / "out"))
    assert (sample.kind, sample.sparse) == ("metric", True)
    wanted = np.full((HEIGHT, WIDTH), np.inf)
    for (x, y), value in zip(pixels.astype(int), depth, strict=True):
        wanted[y, x] = min(wanted[y, x], value)
    assert np.isfinite(sample.depth).sum() == np.isfinite(wanted).sum() > 30
    np.testing.assert_allclose(sample.depth[np.isfinite(wanted)], wanted[np.isfinite(wanted)], rtol=1e-4)


def test_waymo_takes_exported_projections(tmp_path: Path) -> None:
    """Depth is how far a point lies along the camera's own x axis, whatever its distance."""
    extrinsic = np.eye(4)
    extrinsic[:3, :3] = Rotation.from_euler("z", 40, degrees=True).as_matrix()
    extrinsic[:3, 3] = (1.5, 0.2, 2.0)
    in_camera = np.array([[10.0, 3, 1], [4.0, -2, 0], [-5.0, 0, 0]])
    points = in_camera @ extrinsic[:3, :3].T + extrinsic[:3, 3]
    pixels = np.array([[3.5, 4.5], [20.2, 10.9], [7.0, 7.0]])
    segment = tmp_path / "in" / "segment-1"
    save(segment / "1507_FRONT.jpg", picture())
    np.savez(segment / "1507_FRONT.npz", points=points, pixels=pixels, extrinsic=extrinsic)
    depth = alone(converted("waymo", tmp_path / "in", tmp_path / "out")).depth
    assert np.argwhere(np.isfinite(depth)).tolist() == [[4, 3], [10, 20]]
    np.testing.assert_allclose(depth[[4, 10], [3, 20]], [10, 4], rtol=1e-5)


LENS = (60.0, 31.5, 23.0, 0.1, -0.05, 0.02, 0, 0, 0, 0.001, -0.002, 0.003, 0, -0.001, 0)


def test_aria_is_undistorted_planar_and_upright(tmp_path: Path) -> None:
    """A wall at 2 m with a straight vertical edge, seen through the fisheye: by inverting the lens numerically."""
    from scipy.optimize import fsolve

    size = (48, 64)

    def ray(row: float, column: float) -> np.ndarray:
        def miss(xy: np.ndarray) -> np.ndarray:
            return aria.project(np.array([[[xy[0], xy[1], 1.0]]]), LENS)[:, 0, 0] - (column, row)

        return fsolve(miss, ((column - LENS[1]) / 60, (row - LENS[2]) / 60))

    wall = np.array([[ray(row, column) for column in range(size[1])] for row in range(size[0])])
    distance = 2 * np.sqrt(1 + (wall**2).sum(-1))
    image = np.where(wall[..., :1] > 0.1, 255, 0).repeat(3, -1).astype(np.uint8)
    scene = tmp_path / "in" / "83"
    save(scene / "rgb" / "vignette0000004.jpg", image)
    save(scene / "depth" / "depth0000004.png", (distance * 1000).round().astype(np.uint16))
    with pytest.raises(ValueError, match=r"calibration\.json is missing"):
        list(convert("aria", tmp_path / "in", tmp_path / "out"))
    (tmp_path / "in" / "calibration.json").write_text(json.dumps({"projection_params": LENS}))
    sample = alone(converted("aria", tmp_path / "in", tmp_path / "out"))
    assert sample.depth.shape == (size[1], size[0])
    known = sample.depth[np.isfinite(sample.depth)]
    assert known.size > 0.7 * sample.depth.size
    np.testing.assert_allclose(known, 2, rtol=0.01)  # the nearest pixel's distance
    assert distance.max() > 2.15
    # The edge, vertical for the sensor, is a straight horizontal line in the upright picture: x = 0.1 to its right
    # lies below the middle after a quarter turn clockwise.
    bright = sample.image[..., 0] > 127
    edge = [int(np.argmax(column)) for column in bright[:, 8:-8].T]
    assert max(edge) - min(edge) <= 1
    assert edge[20] == pytest.approx(31.5 + 0.1 * 60, abs=1)


def test_the_lens_without_coefficients_is_the_equidistant_one() -> None:
    rays = np.array([[[0.3, -0.4, 1.0], [0.0, 0.0, 2.0]]])
    plain = (100.0, 50.0, 40.0, *[0.0] * 12)
    angle = np.arctan(0.5)
    np.testing.assert_allclose(aria.project(rays, plain)[:, 0, 0], [50 + 100 * angle * 0.6, 40 - 100 * angle * 0.8])
    np.testing.assert_allclose(aria.project(rays, plain)[:, 0, 1], [50, 40])


# Commands and docs


def test_the_command_keeps_finished_shards_and_names_what_is_there(tmp_path: Path) -> None:
    for name in ("00000003", "00000004"):
        save(tmp_path / "in" / "s" / "blended_images" / f"{name}.jpg", picture())
        (tmp_path / "in" / "s" / "rendered_depth_maps").mkdir(exist_ok=True)
        header = f"Pf\n{WIDTH} {HEIGHT}\n-1.0\n".encode()
        (tmp_path / "in" / "s" / "rendered_depth_maps" / f"{name}.pfm").write_bytes(header + meters().tobytes())

    def run(*arguments: object) -> tuple[int, str]:
        result = CliRunner().invoke(app, ["data", "convert", *map(str, arguments)])
        return result.exit_code, result.output + result.stderr

    code, text = run("blendedmvs", tmp_path / "in", tmp_path / "out")
    assert code == 0, text
    assert "2 frames written" in text
    assert "blendedmvs-00000: kept" in run("blendedmvs", tmp_path / "in", tmp_path / "out")[1]
    for arguments, message in (
        (("blended", tmp_path / "in"), "choose one of argoverse2"),
        (("hypersim", tmp_path / "in"), "holds no frame in the layout of hypersim"),
        (("hypersim", tmp_path / "none"), "does not exist"),
    ):
        code, text = run(*arguments, tmp_path / "out")
        assert code == 2
        assert message in " ".join(text.split())


def test_the_docs_list_the_data_sets() -> None:
    rows = [line.split("|") for line in DOCS.read_text(encoding="utf-8").splitlines() if line.startswith("| `")]
    assert {row[1].strip(" `"): row[4].strip() for row in rows} == {name: s.kind for name, s in DATA_SETS.items()}
