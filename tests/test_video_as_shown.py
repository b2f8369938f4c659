"""Clips as players show them: pixels that are not square, mirrored and turned pictures, interlaced ones, HDR."""

import struct
from fractions import Fraction

import numpy as np
import pytest
import torch

pytest.importorskip("av")

import av

from mforce.mforce_core.video.hdr import (
    BT2020,
    DISPLAY_P3,
    HLG,
    P3_OF_CINEMA,
    PQ,
    hlg_light,
    pq_codes,
    pq_light,
    roll_off,
    to_sdr,
)
from mforce.mforce_core.video.reader import VideoReader

WIDTH, HEIGHT = 96, 64


def write(path, pictures, *, codec="ffv1", pix_fmt="bgr0", form="rgb24", options=None, **properties):
    """A clip by PyAV alone, with properties of its codec."""
    with av.open(str(path), "w") as made:
        stream = made.add_stream(codec, rate=25, options=options or {})
        first = av.VideoFrame.from_ndarray(pictures[0], format=form)
        stream.width, stream.height, stream.pix_fmt = first.width, first.height, pix_fmt
        for name, value in properties.items():
            setattr(stream.codec_context, name, value)
        for picture in pictures:
            made.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format=form)))
        made.mux(stream.encode(None))
    return path


def read(path):
    with VideoReader(path) as video:
        return np.stack(list(video)), video.notes


def ellipse(width, height, across, down):
    y, x = np.mgrid[:height, :width]
    inside = ((x + 0.5 - width / 2) / across) ** 2 + ((y + 0.5 - height / 2) / down) ** 2 < 1
    return (np.repeat(inside[..., None], 3, -1) * 255).astype(np.uint8)


@pytest.mark.parametrize(
    ("ratio", "size"),
    [
        (Fraction(64, 45), (720, 576, 1024, 576)),  # DV of a PAL camera, 16:9
        (Fraction(4, 3), (1440, 1080, 1920, 1080)),  # HDV
        (Fraction(8, 9), (720, 480, 720, 540)),  # NTSC, 4:3: no side shrinks
    ],
)
def test_a_circle_is_round(tmp_path, ratio, size):
    width, height, shown_width, shown_height = size
    stored = ellipse(width, height, 200 / float(ratio), 200)
    path = write(tmp_path / "a.mkv", [stored], codec="mpeg4", pix_fmt="yuv420p", sample_aspect_ratio=ratio)
    (picture,), notes = read(path)
    assert picture.shape == (shown_height, shown_width, 3)
    lit = picture[..., 0] > 127
    assert lit.any(0).sum() == pytest.approx(lit.any(1).sum(), abs=4)
    read_as = f"its pictures of {width}x{height} are read as {shown_width}x{shown_height}, as players show them."
    assert notes == (f"a.mkv has pixels that are not square: {read_as}",)


@pytest.mark.parametrize("ratio", [Fraction(1), Fraction(1216, 1215), Fraction(1, 200)])
def test_pixels_that_are_nearly_square_or_cannot_be_are_left_as_they_are(tmp_path, ratio):
    picture = ellipse(WIDTH, HEIGHT, 40, 20)
    (found,), notes = read(write(tmp_path / "a.mkv", [picture], sample_aspect_ratio=ratio))
    assert np.array_equal(found, picture)
    assert notes == ()


#: Matrices (a, b, c, d, and where the corner goes) of ISO/IEC 14496-12, in the order of Exif's orientations.
MATRICES = {
    "upright": (1, 0, 0, 1, 0, 0),
    "mirrored": (-1, 0, 0, 1, WIDTH, 0),
    "half a turn": (-1, 0, 0, -1, WIDTH, HEIGHT),
    "upside down": (1, 0, 0, -1, 0, HEIGHT),
    "transposed": (0, 1, 1, 0, 0, 0),
    "a quarter clockwise": (0, 1, -1, 0, HEIGHT, 0),
    "transposed the other way": (0, -1, -1, 0, HEIGHT, WIDTH),
    "a quarter back": (0, -1, 1, 0, 0, WIDTH),
}


@pytest.mark.parametrize("matrix", MATRICES)
def test_pictures_are_turned_and_mirrored_as_their_file_says(tmp_path, matrix):
    random = np.random.default_rng(0).integers(0, 256, (HEIGHT // 8, WIDTH // 8, 3), dtype=np.uint8)
    path = write(tmp_path / "a.mp4", [random.repeat(8, 0).repeat(8, 1)] * 2, codec="png", pix_fmt="rgb24")
    content = bytearray(path.read_bytes())
    place = content.index(b"tkhd") + 4 + 40
    a, b, c, d, right, down = MATRICES[matrix]
    entries = [round(entry * 65536) for entry in (a, b, 0, c, d, 0, right, down)]
    content[place : place + 36] = struct.pack(">9i", *entries, 1 << 30)
    path.write_bytes(content)
    wide = (HEIGHT, WIDTH) if a else (WIDTH, HEIGHT)
    wanted = np.zeros((*wide, 3), np.uint8)
    for y in range(HEIGHT):
        for x in range(WIDTH):
            column, row = a * (x + 0.5) + c * (y + 0.5) + right, b * (x + 0.5) + d * (y + 0.5) + down
            wanted[int(row), int(column)] = random[y // 8, x // 8]
    assert np.array_equal(read(path)[0][1], wanted)


def test_what_is_turned_is_widened_before(tmp_path):
    path = write(
        tmp_path / "a.mp4", [ellipse(720, 576, 150, 200)], codec="mpeg4", pix_fmt="yuv420p",
        sample_aspect_ratio=Fraction(4, 3),
    )  # fmt: skip
    content = bytearray(path.read_bytes())
    place = content.index(b"tkhd") + 4 + 40
    content[place : place + 20] = struct.pack(">5i", 0, 65536, 0, -65536, 0)
    path.write_bytes(content)
    (picture,), _ = read(path)
    assert picture.shape == (960, 576, 3)


def test_the_two_moments_of_an_interlaced_frame_become_one(tmp_path):
    def moment(number):
        """A block that moves 8 pixels from one half frame to the next, which is 50 times a second."""
        picture = np.full((HEIGHT, WIDTH, 3), 60, np.uint8)
        picture[16:48, 4 + 8 * (number % 8) : 24 + 8 * (number % 8)] = 200
        return picture

    frames = []
    for number in range(6):
        frame = moment(2 * number)
        frame[::2] = moment(2 * number + 1)[::2]  # what x264 makes of PyAV's frames begins with the lower half
        frames.append(frame)
    options = {"x264-params": "tff=1", "crf": "4"}
    path = write(tmp_path / "a.mp4", frames, codec="libx264", pix_fmt="yuv420p", options=options)
    pictures, _ = read(path)
    assert len(pictures) == 6
    wanted = np.stack([moment(2 * number) for number in range(6)]).astype(float)
    error, combed = np.abs(pictures - wanted).mean(), np.abs(np.stack(frames) - wanted).mean()
    assert error < 0.25 * combed
    with VideoReader(path, start=0.08) as video:  # the part of a clip is the same
        assert np.abs(np.stack(list(video))[1:].astype(float) - pictures[3:]).mean() < 0.05 * combed
    progressive = write(tmp_path / "b.mp4", frames, codec="libx264", pix_fmt="yuv420p", options={"crf": "4"})
    assert np.abs(read(progressive)[0].astype(float) - frames).mean() < 0.25 * combed


def test_an_interlaced_clip_that_changes_its_size_is_refused(tmp_path):
    options = {"x264-params": "tff=1"}
    parts = []
    for height in (HEIGHT, 2 * HEIGHT):
        pictures = [np.zeros((height, WIDTH, 3), np.uint8)] * 3
        path = write(tmp_path / "part.h264", pictures, codec="libx264", pix_fmt="yuv420p", options=options)
        parts.append(path.read_bytes())
    (tmp_path / "a.h264").write_bytes(b"".join(parts))
    with pytest.raises(ValueError, match=r"a\.h264 changes its size from 96x64 to 96x128: cut it there"):
        read(tmp_path / "a.h264")


#: Of colour-science 0.4.7: ``eotf_ST2084`` and ``eotf_BT2100_HLG``, in cd/m².
PQ_LIGHT = [0.325, 10.038, 92.246, 620.879, 3905.645]
HLG_CODES = [[0.75, 0.3, 0.1], [0.2, 0.6, 0.4], [0.1, 0.1, 0.9], [1.0, 1.0, 1.0]]
HLG_LIGHT = [[163.746, 18.54, 2.06], [8.299, 79.673, 33.198], [1.73, 1.73, 301.945], [1000.0, 1000.0, 1000.0]]


def test_light_is_that_of_the_standards():
    """Of ITU-R BT.2408, table 1 (a gray card and white), and of colour-science."""
    for light, pq, hlg in ((26, 0.38, 0.38), (203, 0.58, 0.75)):
        assert float(pq_light(torch.tensor(pq))) == pytest.approx(light, rel=0.01)
        assert hlg_light(torch.full((3,), hlg)).tolist() == pytest.approx([light] * 3, rel=0.01)
    codes = torch.tensor([0.1, 0.3, 0.5, 0.7, 0.9])
    assert pq_light(codes).tolist() == pytest.approx(PQ_LIGHT, abs=6e-4, rel=1e-4)
    assert pq_codes(torch.tensor(PQ_LIGHT)).tolist() == pytest.approx(codes.tolist(), abs=1e-4)
    assert hlg_light(torch.tensor(HLG_CODES)).tolist() == [
        pytest.approx(light, abs=6e-4, rel=1e-4) for light in HLG_LIGHT
    ]


def test_highlights_are_rolled_off_and_the_rest_stays():
    gray = torch.linspace(0, 1000, 1001, dtype=torch.float64)[:, None].expand(-1, 3)  # steps are small at the end
    rolled = roll_off(gray)
    assert torch.allclose(rolled[:89], gray[:89], rtol=1e-4)
    steps = rolled[:, 0].diff()
    assert (steps > 0).all()
    assert (steps <= 1.001).all()
    assert float(rolled[-1, 0]) == pytest.approx(203, rel=1e-3)
    assert float(roll_off(torch.full((1, 3), 4000.0))[0, 0]) == pytest.approx(203, rel=1e-3)
    colored = roll_off(torch.tensor([[800.0, 400.0, 100.0]]))[0]
    assert (colored / colored[0]).tolist() == pytest.approx([1, 0.5, 0.125])


def planes(codes):
    """Limited range of Y'CbCr in BT.2020, 16 bits, of codes (H, W, 3) in [0, 1]."""
    luma = codes @ np.array([0.2627, 0.6780, 0.0593])
    blue, red = (codes[..., 2] - luma) / 1.8814, (codes[..., 0] - luma) / 1.4746
    levels = np.stack([219 * luma + 16, 224 * blue + 128, 224 * red + 128], -1) * 256
    return levels.round().astype(np.uint16)


def hdr_clip(path, codes, transfer, bt2020=BT2020):
    tags = {"color_primaries": bt2020, "color_trc": transfer, "colorspace": bt2020, "color_range": 1}
    return write(path, [planes(codes)], pix_fmt="yuv444p16le", form="yuv444p16le", **tags)


def test_a_clip_in_pq_is_what_ffmpeg_makes_of_it_below_highlights(tmp_path):
    """FFmpeg's own conversion, in PyAV from version 17 on, cuts highlights off where they are rolled off here."""
    if int(av.__version__.split(".")[0]) < 17:
        pytest.skip("this PyAV does not convert colors")
    random = np.random.default_rng(0)
    light = random.uniform(10, 88, (HEIGHT, WIDTH, 1)) * random.uniform(0.7, 1, (HEIGHT, WIDTH, 3))
    path = hdr_clip(tmp_path / "a.mkv", pq_codes(torch.from_numpy(light)).numpy(), PQ)
    (picture,), notes = read(path)
    with av.open(str(path)) as clip:
        frame = next(clip.decode(video=0))
        wanted = frame.reformat(format="rgb24", dst_color_trc=1, dst_color_primaries=1).to_ndarray()
    assert np.abs(picture.astype(int) - wanted).mean() < 1
    assert np.quantile(np.abs(picture.astype(int) - wanted), 0.99) <= 3
    assert notes == ("a.mkv is HDR (PQ): its pictures are read as an ordinary screen shows them.",)


def test_a_clip_in_hlg_is_shown_on_an_ordinary_screen(tmp_path):
    """A gray card (26 cd/m²) and white (203 cd/m²) of ITU-R BT.2408, and what is brightest."""
    codes = np.repeat(np.array([0.0, 0.38, 0.75, 1.0]), WIDTH // 4)[None, :, None] * np.ones((HEIGHT, 1, 3))
    (picture,), _ = read(hdr_clip(tmp_path / "a.mkv", codes, HLG))
    black, card, white, most = picture[HEIGHT // 2, WIDTH // 8 :: WIDTH // 4].mean(-1)
    assert black == 0
    assert card == pytest.approx(255 * (26 / 203) ** (1 / 2.4), abs=2)
    assert 215 < white < 245
    assert most == 255


def test_hdr_is_in_bt2020_where_a_file_says_no_more(tmp_path):
    codes = np.random.default_rng(0).uniform(0.2, 0.6, (HEIGHT, WIDTH, 3))
    said, _ = read(hdr_clip(tmp_path / "a.mkv", codes, HLG))
    unsaid, _ = read(hdr_clip(tmp_path / "b.mkv", codes, HLG, bt2020=2))
    assert np.abs(said.astype(int) - unsaid).max() <= 1


def test_wide_colors_of_an_ordinary_screen_keep_their_grays_and_gain_saturation():
    levels = np.array([[[0, 0, 0], [30000, 30000, 30000], [65535, 65535, 65535], [40000, 30000, 20000]]], np.uint16)
    made = to_sdr(levels, 14, BT2020)[0].astype(int)
    assert np.abs(made[:3] - (levels[0, :3] / 257).round()).max() <= 1
    assert made[3, 0] > 40000 / 257 + 5
    assert made[3, 2] < 20000 / 257 - 5
    assert np.array_equal(to_sdr(levels, 1, 1)[0], (levels[0] / 257).round())


@pytest.mark.parametrize("primaries", [P3_OF_CINEMA, DISPLAY_P3])
def test_colors_of_p3_are_what_their_primaries_make_of_them(tmp_path, primaries):
    """Chromaticities of SMPTE EG 432-1 and ITU-R BT.709 with the white of daylight, for RGB and for a matrix unsaid."""

    def to_xyz(*chromaticities):
        columns = np.array([[x / y, 1, (1 - x - y) / y] for x, y in chromaticities]).T
        white = np.array([0.3127 / 0.3290, 1, (1 - 0.3127 - 0.3290) / 0.3290])
        return columns * np.linalg.solve(columns, white)

    p3 = to_xyz((0.680, 0.320), (0.265, 0.690), (0.150, 0.060))
    bt709 = to_xyz((0.640, 0.330), (0.300, 0.600), (0.150, 0.060))
    levels = np.random.default_rng(0).integers(60, 200, (HEIGHT, WIDTH, 3)).astype(np.uint8)
    tags = {"color_primaries": primaries, "color_trc": 1}
    (found,), notes = read(write(tmp_path / "a.mkv", [levels], **tags))
    light = (levels / 255) ** 2.4 @ (np.linalg.inv(bt709) @ p3).T
    wanted = 255 * light.clip(0, 1) ** (1 / 2.4)
    assert np.abs(found - wanted).max() <= 1
    assert np.abs(wanted - levels).max() > 20
    assert not notes
    planar = {"pix_fmt": "yuv444p16le", "form": "yuv444p16le", "color_range": 1, **tags}
    unsaid, said = (
        read(write(tmp_path / f"{matrix}.mkv", [planes(levels / 255)], colorspace=matrix, **planar))[0]
        for matrix in (2, 1)
    )
    np.testing.assert_array_equal(unsaid, said)


@pytest.mark.parametrize("limited", [True, False])
def test_levels_of_both_ranges_are_those_that_the_file_names(tmp_path, limited):
    luma = np.linspace(0, 1, WIDTH)[None, :, None] * np.ones((HEIGHT, 1, 1))
    levels = (219 * luma + 16) * 256 if limited else luma * 65535
    gray = np.concatenate([levels, np.full((HEIGHT, WIDTH, 2), 32768)], -1).round().astype(np.uint16)
    tags = {"color_primaries": 1, "color_trc": 1, "colorspace": 1, "color_range": 1 if limited else 2}
    path = write(tmp_path / "a.mkv", [gray], pix_fmt="yuv444p16le", form="yuv444p16le", **tags)
    assert np.abs(read(path)[0][0] - luma * 255).max() <= 1.5


@pytest.mark.parametrize("primaries", [1, BT2020])
@pytest.mark.parametrize("matrix", [8, 10, 14])  # YCgCo, BT.2020 with constant luminance, ICtCp
def test_a_matrix_that_ffmpeg_does_not_read_stops_nothing(tmp_path, matrix, primaries):
    picture = np.full((HEIGHT, WIDTH, 3), (200, 30, 60), np.uint8)
    tags = {"color_primaries": primaries, "pix_fmt": "yuv444p"}
    (found,), notes = read(write(tmp_path / "a.mkv", [picture], colorspace=matrix, **tags))
    near = BT2020 if matrix == 10 or primaries == BT2020 else 2
    (wanted,), none = read(write(tmp_path / "b.mkv", [picture], colorspace=near, **tags))
    np.testing.assert_array_equal(found, wanted)
    assert not none
    assert ["they are off" in note for note in notes] == ([] if matrix == 10 else [True])
