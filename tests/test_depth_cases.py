"""Depth files that other programs write: the right values, and a sentence where there are none.

``cases`` holds small files in the forms of public reports; the EXR layouts are written here with OpenEXR itself.
"""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mforce.mforce_core.depth.files import read_depth, write_float_tiff, write_pfm

OpenEXR = pytest.importorskip("OpenEXR")

CASES = Path(__file__).parent / "cases"
DEPTH = np.random.default_rng(3).uniform(1.5, 5.4, (6, 8)).astype(np.float32)
DECOY = np.random.default_rng(4).uniform(0.1, 0.9, (6, 8)).astype(np.float32)


@pytest.mark.parametrize("name", ["VA", "blender_file_output", "denoising_data", "depth_rgba_layer"])
def test_depth_of_renderers(name):
    found = read_depth(CASES / "01_exr_channel" / f"{name}.exr").depth
    assert found.min() == pytest.approx(1.5005, abs=1e-4)
    assert found.max() == pytest.approx(5.4374, abs=1e-4)
    assert found.mean() == pytest.approx(3.5343, abs=1e-4)


def rgba(layer=""):
    return [layer + component for component in "RGBA"]


def xyz(layer):
    return [layer + component for component in "XYZ"]


#: Channels of files as programs write them, and the one that is depth; "part/channel" in files of several parts.
LAYOUTS = {
    "Blender, multilayer render": (
        [*rgba("ViewLayer.Combined."), *xyz("ViewLayer.Normal."), *xyz("ViewLayer.Position."),
         *(f"ViewLayer.Vector.{c}" for c in "XYZW"), "ViewLayer.UV.U", "ViewLayer.UV.V", "ViewLayer.UV.A",
         "ViewLayer.Mist.Z", "ViewLayer.IndexOB.X", "ViewLayer.AO.R", "ViewLayer.AO.G", "ViewLayer.AO.B",
         *(f"ViewLayer.CryptoObject00.{c}" for c in "rgba")],
        "ViewLayer.Depth.Z",
    ),
    "Blender, denoising data with its own depth": (
        [*xyz("ViewLayer.Denoising Normal."), "ViewLayer.Denoising Depth.Z",
         *(f"ViewLayer.Denoising Albedo.{c}" for c in "RGB")],
        "ViewLayer.Depth.Z",
    ),
    "Blender, denoising depth alone": (
        [*xyz("ViewLayer.Denoising Normal."), *rgba("ViewLayer.Combined.")], "ViewLayer.Denoising Depth.Z",
    ),
    "Blender, single layer": (rgba(), "Z"),
    "Blender, stereo": (["View.Combined.right.R", "View.Depth.right.Z"], "View.Depth.left.Z"),
    "Blender, several parts": (
        [*(f"View.Combined/View.Combined.{c}" for c in "RGBA"), *(f"View.Normal/View.Normal.{c}" for c in "XYZ")],
        "View.Depth/View.Depth.Z",
    ),
    "Arnold": ([*rgba(), *xyz("N."), *xyz("P."), "volume_Z", "Z_back", "motionvector.X", "motionvector.Y",
                "crypto_object.R", "crypto_object.G", "crypto_object.B", "AA_inv_density", "depth_mask"], "Z"),
    "Unreal": (
        [*rgba(), *(f"FinalImageMovieRenderQueue_WorldDepth.{c}" for c in "GBA"),
         *(f"FinalImageMovieRenderQueue_MotionVectors.{c}" for c in "RGBA"),
         *(f"FinalImageMovieRenderQueue_WorldNormal.{c}" for c in "RGBA"),
         "ActorHitProxyMask00.R", "ActorHitProxyMask00.G", "ActorHitProxyMask00.B"],
        "FinalImageMovieRenderQueue_WorldDepth.R",
    ),
    "V-Ray": ([*rgba(), *xyz("VRayNormals."), *xyz("VRayVelocity."), *rgba("VRayRawLighting."), "VRayMtlID.I",
               "effectsResult.R", "effectsResult.G", "effectsResult.B"], "VRayZDepth.R"),
    "V-Ray, Z": ([*rgba(), *xyz("normals."), *xyz("velocity.")], "Z"),
    "Corona": ([*rgba(), *rgba("CShading_Albedo.")], "CGeometry_ZDepth.Y"),
    "Nuke": ([*rgba(), "forward.u", "forward.v", "backward.u", "backward.v", "mask.a", *xyz("N."), *xyz("P.")],
             "depth.Z"),
    "Nuke, several parts": ([f"rgba/{c}" for c in "RGBA"] + ["mask/mask.a"], "depth/depth.Z"),
    "Houdini Mantra": ([*rgba("C."), *(f"P.{c}" for c in "xyz"), *(f"N.{c}" for c in "xyz"),
                        *(f"V.{c}" for c in "xyz"), "Of.r", "Af"], "Pz"),
    "Houdini Karma": ([*rgba("C."), *xyz("hitP."), *xyz("hitN."), "primid", "sample_count"], "hitPz"),
    "RenderMan": (["r", "g", "b", "a", "Nn.x", "Nn.y", "Nn.z", "zfiltered"], "z"),
    "Redshift": ([*rgba(), *rgba("BumpNormals."), *rgba("MotionVectors."), *rgba("WorldPosition.")], "Z"),
    "OIDN and noice": ([*rgba(), *xyz("N_noisy."), *rgba("denoise_albedo_noisy."), *rgba("variance."), "Z_noisy.Z"],
                       "Z"),
    "Mitsuba": ([*rgba(), *xyz("nn."), "uv.u", "uv.v"], "dd.depth"),
    "one channel": ([], "Y"),
    "one channel with alpha": (["A"], "R"),
    "one value channel": (["A"], "V"),
}  # fmt: skip


def write_parts(path, channels):
    """Channels by "part/name" or "name"."""
    parts = {}
    for name, pixels in channels.items():
        part, slash, channel = name.rpartition("/")
        parts.setdefault(part if slash else "", {})[channel] = pixels
    header = {"type": OpenEXR.scanlineimage}
    if list(parts) == [""]:
        OpenEXR.File(header, parts[""]).write(str(path))
    else:
        OpenEXR.File([OpenEXR.Part(dict(header), found, part) for part, found in parts.items()]).write(str(path))
    return path


@pytest.mark.parametrize("program", LAYOUTS)
def test_the_channel_of_every_program(program, tmp_path):
    others, depth = LAYOUTS[program]
    opaque = {name: np.ones_like(DECOY) for name in others if name[-1] in "aA"}
    channels = {name: DECOY + index for index, name in enumerate(others)} | opaque
    # In a gray picture with three equal channels, as Unreal's, only the first is depth here: it must be the one taken.
    path = write_parts(tmp_path / "d.exr", {**channels, depth: DEPTH})
    np.testing.assert_array_equal(read_depth(path).depth, DEPTH)


@pytest.mark.parametrize(
    ("channels", "message"),
    [
        (rgba(), "color picture"),
        (rgba("Image."), "color picture"),
        (["Y", "RY", "BY"], "none is depth"),
        (xyz("Normal."), "none is depth"),
        (["N.Z"], "none is depth"),
        (["UV.U", "UV.V", "UV.A"], "none is depth"),
        (["P.X", "P.Y", "P.Z", "A"], "none is depth"),
        (["A"], "none is depth"),
        (["Vector.X", "Vector.Y", "Vector.Z", "Vector.W"], "none is depth"),
        ([*rgba(), "Mist.Z"], "color picture"),
    ],
)
def test_what_is_no_depth_is_refused(channels, message, tmp_path):
    path = write_parts(tmp_path / "d.exr", {name: DECOY + i for i, name in enumerate(channels)})
    with pytest.raises(ValueError, match=message):
        read_depth(path)


def test_other_candidates_are_named(tmp_path):
    path = write_parts(tmp_path / "d.exr", {"View.Depth.left.Z": DEPTH, "View.Depth.right.Z": DECOY, "Image.R": DECOY})
    read = read_depth(path)
    assert "from View.Depth.left.Z, not from View.Depth.right.Z" in read.notes[0]
    np.testing.assert_array_equal(read_depth(path, channel="View.Depth.right.Z").depth, DECOY)


@pytest.mark.parametrize("name", ["disparity", "Disparity.Y", "inverse_depth", "cam.InverseDepth.Z"])
def test_a_channel_called_disparity_is_disparity(name, tmp_path):
    read = read_depth(write_parts(tmp_path / "d.exr", {name: 1 / DEPTH, **dict.fromkeys(rgba(), DECOY)}))
    np.testing.assert_allclose(read.depth, DEPTH, rtol=1e-6)
    assert "so it was read as disparity" in read.notes[-1]
    both = read_depth(write_parts(tmp_path / "e.exr", {name: DECOY, "view.depth.Z": DEPTH}))
    np.testing.assert_array_equal(both.depth, DEPTH)
    np.testing.assert_array_equal(read_depth(tmp_path / "d.exr", disparity=False).depth, 1 / DEPTH)


def test_a_layer_can_be_named(tmp_path):
    path = write_parts(tmp_path / "d.exr", {"Z": DECOY, **{f"fog.{c}": DEPTH for c in "RGB"}})
    np.testing.assert_array_equal(read_depth(path, channel="Fog").depth, DEPTH)


def test_a_gray_exr_in_three_channels_is_read(tmp_path):
    path = write_parts(tmp_path / "d.exr", dict.fromkeys("RGB", DEPTH))
    np.testing.assert_array_equal(read_depth(path).depth, DEPTH)


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_the_largest_half_is_background(dtype, tmp_path):
    read = read_depth(CASES / "02_half_float_background" / "half_bg65504.exr")
    assert np.nanmax(read.depth) < 10
    assert "background" in read.notes[-1]
    values = DEPTH.astype(dtype)
    values[0] = 65504
    path = write_parts(tmp_path / "d.exr", {"Z": values})
    assert np.isnan(read_depth(path).depth[0]).all()
    np.testing.assert_array_equal(read_depth(path).depth[1:], values[1:].astype(np.float32))


def test_a_transparent_pixel_is_missing(tmp_path):
    read = read_depth(CASES / "17_alpha_ignored" / "own_edited_alpha.exr").depth
    assert np.isnan(read).mean() == pytest.approx(1 / 3, abs=0.01)
    alpha = np.ones_like(DEPTH)
    alpha[0], alpha[1] = 0, 0.25
    found = read_depth(write_parts(tmp_path / "d.exr", {"Z": DEPTH, "A": alpha})).depth
    np.testing.assert_array_equal(found, np.where(alpha > 0, DEPTH, np.nan))
    nowhere = read_depth(write_parts(tmp_path / "e.exr", {"Z": DEPTH, "A": 0 * alpha}))
    np.testing.assert_array_equal(nowhere.depth, DEPTH)
    assert "alpha of 0 everywhere" in nowhere.notes[0]
    # Another layer's alpha says nothing about depth.
    found = read_depth(write_parts(tmp_path / "f.exr", {"Depth.Z": DEPTH, "Image.A": alpha})).depth
    np.testing.assert_array_equal(found, DEPTH)


def test_half_of_white_decides_in_a_mask():
    folder = CASES / "06_jpeg_mask"
    sharp, lossy = (read_depth(folder / "d.npy", mask=folder / name).depth for name in ("m.png", "m75.jpg"))
    assert np.isfinite(sharp).sum() == 2809
    np.testing.assert_array_equal(np.isfinite(lossy), np.isfinite(sharp))


def masks():
    valid = np.zeros(DEPTH.shape, dtype=bool)
    valid[2:5, 1:6] = True
    gray = np.where(valid, 255, 20).astype(np.uint8)
    alpha_only = np.stack([np.zeros_like(gray)] * 3 + [np.where(valid, 255, 0).astype(np.uint8)], -1)
    white_alpha = alpha_only.copy()
    white_alpha[..., :3] = np.where(valid, 255, 0)[..., None]
    return valid, {
        "gray.png": gray,
        "rgb.png": np.stack([gray] * 3, -1),
        "alpha.png": alpha_only,
        "white_alpha.png": white_alpha,
        "deep.png": np.where(valid, 65535, 300).astype(np.uint16),
        "float.tif": np.where(valid, 1.0, 0.25).astype(np.float32),
        "float255.tif": np.where(valid, 255.0, 3).astype(np.float32),
        "zero_one.png": valid.astype(np.uint8),
        "bool.npy": valid,
        "bytes.npy": gray,
        "zero_one.npy": valid.astype(np.int64),
        "float.npy": np.where(valid, 0.9, 0.1),
        "batch.npy": valid[None, ..., None],
    }


@pytest.mark.parametrize("name", masks()[1])
def test_every_form_of_mask(name, tmp_path):
    valid, forms = masks()
    np.save(tmp_path / "d.npy", DEPTH)
    if name.endswith("npy"):
        np.save(tmp_path / name, forms[name])
    else:
        Image.fromarray(forms[name]).save(tmp_path / name)
    found = read_depth(tmp_path / "d.npy", mask=tmp_path / name).depth
    np.testing.assert_array_equal(found, np.where(valid, DEPTH, np.nan))


def test_a_boolean_mask_of_the_reports():
    folder = CASES / "07_bool_npy_mask"
    found = read_depth(folder / "depth.npy", mask=folder / "mask.npy").depth
    np.testing.assert_array_equal(np.isfinite(found), np.load(folder / "mask.npy"))


def test_stretched_disparity():
    folder = CASES / "08_stretched_disparity"
    true = np.load(folder / "true_depth.npy")
    read = read_depth(folder / "da2_norm16.png", disparity=True, far_to_near=true.max() / true.min())
    np.testing.assert_allclose(read.depth / read.depth.mean(), true / true.mean(), rtol=1e-3)
    assert not read.notes
    guessed = read_depth(folder / "da2_norm16.png", disparity=True)
    assert guessed.depth.max() / guessed.depth.min() == pytest.approx(10)
    assert "stretched" in guessed.notes[0]


def test_disparity_that_was_not_stretched_is_as_it_is(tmp_path):
    levels = np.array([[0, 20000], [40000, 65535]], dtype=np.uint16)
    Image.fromarray(levels).save(tmp_path / "d.png")
    read = read_depth(tmp_path / "d.png", disparity=True)
    np.testing.assert_allclose(read.depth, [[np.nan, 1 / 20000], [1 / 40000, 1 / 65535]], rtol=1e-6)
    assert not read.notes


@pytest.mark.parametrize("channels", [1, 2, 3])
def test_8_bit_maps_are_disparity(channels, tmp_path):
    true = np.linspace(1, 4, 48).reshape(6, 8)
    near = (1 / true - 1 / 4) / (1 - 1 / 4)
    levels = np.round(near * 255).astype(np.uint8)
    pixels = levels if channels == 1 else np.stack([levels] * channels, -1)
    if channels == 2:
        pixels[..., 1] = 255
    Image.fromarray(pixels).save(tmp_path / "d.png")
    read = read_depth(tmp_path / "d.png", far_to_near=4)
    np.testing.assert_allclose(read.depth / read.depth.min(), true, rtol=0.01)
    assert read.assumed
    assert "8 bits per pixel; it was read as disparity" in read.notes[0]
    assert "stretched" in read_depth(tmp_path / "d.png").notes[1]
    with pytest.raises(ValueError, match="only 8 bits per pixel"):
        read_depth(tmp_path / "d.png", disparity=False)


@pytest.mark.parametrize("shape", [(1, 1, 6, 8), (1, 6, 8), (6, 8, 1), (1, 6, 8, 1), (1, 1, 1, 6, 8)])
def test_dimensions_of_size_one_are_dropped(shape, tmp_path):
    np.save(tmp_path / "d.npy", DEPTH.reshape(shape))
    np.testing.assert_array_equal(read_depth(tmp_path / "d.npy").depth, DEPTH)


def test_a_batch_dimension_of_the_reports():
    read = read_depth(CASES / "22_singleton_dims" / "b1hw.npy").depth
    assert read.shape == (48, 64)
    np.testing.assert_array_equal(read, np.load(CASES / "22_singleton_dims" / "b1hw.npy")[0, 0])


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", [np.float16, ">f4", np.float64, np.int32])
def test_numbers_of_every_kind(dtype, order, tmp_path, recwarn):
    values = (DEPTH * 100).astype(dtype, order=order)
    np.save(tmp_path / "d.npy", values)
    np.testing.assert_array_equal(read_depth(tmp_path / "d.npy").depth, values.astype(np.float32))
    np.savez_compressed(tmp_path / "d.npz", depth=values, mask=np.ones(3))
    np.testing.assert_array_equal(read_depth(tmp_path / "d.npz").depth, values.astype(np.float32))
    assert not recwarn


def test_pfm_and_float_tiff_come_back(tmp_path):
    values = DEPTH.copy()
    values[1, 2] = np.nan
    write_pfm(tmp_path / "d.pfm", values)
    write_float_tiff(tmp_path / "d.tif", values)
    for name in ("d.pfm", "d.tif"):
        np.testing.assert_array_equal(read_depth(tmp_path / name).depth, values)
    # Pillow reads and writes this format too.
    np.testing.assert_array_equal(
        np.asarray(Image.open(tmp_path / "d.pfm")), np.where(np.isnan(values), np.inf, values)
    )
    Image.fromarray(DEPTH).save(tmp_path / "e.pfm")
    np.testing.assert_array_equal(read_depth(tmp_path / "e.pfm").depth, DEPTH)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [({"a": DEPTH, "b": DEPTH}, "none is called depth"), ({"depth": np.array([None])}, "objects"), ({}, "nothing")],
)
def test_archives_without_depth(arrays, message, tmp_path):
    np.savez(tmp_path / "d.npz", **arrays)
    with pytest.raises(ValueError, match=message):
        read_depth(tmp_path / "d.npz")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("16_messages/trunc.exr", "cut short"),
        ("16_messages/la32.png", "16-bit PNG with an alpha channel"),
        ("23_damaged/header_of_npy.npy", "not a plain .npy array"),
        ("23_damaged/claims_too_much_1.exr", "its header is damaged"),
        ("23_damaged/claims_too_much_2.exr", "claims 134217792x48 pixels"),
    ],
)
def test_files_that_cannot_be_read_are_named_for_what_they_are(name, message, capfd):
    with pytest.raises(ValueError, match=message) as caught:
        read_depth(CASES / name)
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


def test_float16_npy_of_the_reports(recwarn):
    assert np.nanmax(read_depth(CASES / "16_messages" / "f16.npy").depth) == pytest.approx(5.438, abs=1e-3)
    assert not recwarn


def test_tiles_of_an_unknown_kind_are_refused_before_the_library_sees_them(tmp_path):
    header = {"type": OpenEXR.tiledimage, "tiles": OpenEXR.TileDescription()}
    OpenEXR.File(header, {"Z": DEPTH}).write(str(tmp_path / "d.exr"))
    content = bytearray((tmp_path / "d.exr").read_bytes())
    mode = content.index(b"tiledesc\0") + len(b"tiledesc\0") + 4 + 8
    assert content[mode] in (0, 1, 2)
    content[mode] = 0x13
    (tmp_path / "d.exr").write_bytes(content)
    with pytest.raises(ValueError, match="header is damaged"):
        read_depth(tmp_path / "d.exr")


def test_a_picture_far_larger_than_its_pixels_is_damaged(tmp_path):
    def write(right, bottom):
        corners = {"dataWindow": ((0, 0), (7, 5)), "displayWindow": ((0, 0), (right, bottom))}
        header = {name: tuple(np.array(corner, dtype=np.int32) for corner in box) for name, box in corners.items()}
        path = tmp_path / "d.exr"
        OpenEXR.File({"type": OpenEXR.scanlineimage, **header}, {"Z": DEPTH}).write(str(path))
        return path

    assert read_depth(write(3999, 2999)).depth.shape == (3000, 4000)  # a region of a frame
    with pytest.raises(ValueError, match="claims a picture of 108,000,000 pixels around 48"):
        read_depth(write(8_999_999, 11))


@pytest.mark.parametrize("suffix", [".npy", ".exr", ".npz", ".pfm", ".png", ".tif"])
def test_a_pointer_of_git_lfs_is_named(suffix, tmp_path):
    path = tmp_path / f"d{suffix}"
    path.write_bytes((CASES / "16_messages" / "lfs_pointer" / "model.safetensors").read_bytes())
    with pytest.raises(ValueError, match=r"Git LFS pointer.*git lfs pull"):
        read_depth(path)


@pytest.mark.parametrize("compression", ["NO", "RLE", "ZIPS", "ZIP", "PIZ", "PXR24", "B44", "B44A", "DWAA", "DWAB",
                                         "HTJ2K256", "HTJ2K32"])  # fmt: skip
def test_whole_files_of_every_compression_pass_the_check(compression, tmp_path):
    kind = getattr(OpenEXR, f"{compression}_COMPRESSION", None)
    if kind is None:
        pytest.skip("this OpenEXR does not have it")
    values = np.linspace(1, 2, 300 * 70, dtype=np.float32).reshape(300, 70)
    for storage in ("scanlineimage", "tiledimage"):
        header = {"type": getattr(OpenEXR, storage), "compression": kind}
        if storage == "tiledimage":
            header["tiles"] = OpenEXR.TileDescription()
        OpenEXR.File(header, {"Z": values}).write(str(tmp_path / "d.exr"))
        np.testing.assert_allclose(read_depth(tmp_path / "d.exr").depth, values, rtol=0.02)
        whole = (tmp_path / "d.exr").read_bytes()
        (tmp_path / "cut.exr").write_bytes(whole[: len(whole) // 2])
        with pytest.raises(ValueError, match=r"cut short|cannot hold|can hold"):
            read_depth(tmp_path / "cut.exr")
