"""Animated pictures and transparency in clips, against Pillow, which wrote them, and against what browsers do."""

import io
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps, features

pytest.importorskip("av")

import av

from mforce.mforce_core.picture.files import _formats
from mforce.mforce_core.video.animation import AnimationReader
from mforce.mforce_core.video.clips import open_clip

SIDE = 64
#: Milliseconds for which pictures are shown.
LASTS = [40, 500, 30, 100, 1000]
BEGIN = [0, 0.04, 0.54, 0.57, 0.67, 1.67]
#: How a format is written without loss, and how far its pictures may be off; Pillow writes AVIF with loss.
FORMS = {"webp": ({"lossless": True, "exact": True}, 0), "png": ({}, 0), "gif": ({"disposal": 2}, 0),
         "avif": ({"quality": 100, "subsampling": "4:4:4"}, 4)}  # fmt: skip


def layers(transparent):
    """Pictures (T, H, W, 4) of a square that moves, with colors below what is transparent; GIF has no half of it."""
    made = np.full((len(LASTS), SIDE, SIDE, 4), 255, np.uint8)
    for number, one in enumerate(made):
        one[..., :3] = 40 * number, 255 - 40 * number, 100
        one[8 * number : 8 * number + 16, 8 * number : 8 * number + 16, :3] = 250, 20, 20
        if transparent:
            one[48:, :, :] = 0, 0, 255, 0
    return made


def on_white(pictures):
    """Porter and Duff's "over"."""
    colors, alpha = pictures[..., :3].astype(float), pictures[..., 3:] / 255
    return colors * alpha + 255 * (1 - alpha)


def save(path, pictures, lasts=LASTS, **options):
    frames = [Image.fromarray(one) if one[..., 3].min() < 255 else Image.fromarray(one[..., :3]) for one in pictures]
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=lasts, **options)
    return path


@pytest.mark.parametrize("transparent", [False, True])
@pytest.mark.parametrize("form", FORMS)
def test_an_animation_is_read_with_its_times_and_on_white(tmp_path, form, transparent):
    if not features.check(form if form in ("webp", "avif") else "zlib"):
        pytest.skip(f"Pillow was built without {form}")
    options, off = FORMS[form]
    path = save(tmp_path / f"a.{form}", layers(transparent), **options)
    with open_clip(path) as clip:
        pictures = np.stack(list(clip))
        assert [clip.times.seconds(number) for number in range(6)] == pytest.approx(BEGIN)
        assert clip.notes == (
            ("a." + form + " has transparent pixels; they were put on white.",) if transparent else ()
        )
        assert (clip.begins, clip.breaks_off) == (0, None)
        assert clip.count in (5, 0)  # FFmpeg does not say it of PNG
    assert pictures.dtype == np.uint8
    assert np.abs(pictures - on_white(layers(transparent))).max() <= off + 0.51


def test_an_opaque_avif_is_a_clip_for_a_pillow_without_avif(tmp_path, monkeypatch):
    if not features.check("avif"):
        pytest.skip("Pillow was built without avif")
    path = save(tmp_path / "a.avif", layers(False), **FORMS["avif"][0])
    monkeypatch.setattr(Image, "EXTENSION", {e: kind for e, kind in Image.EXTENSION.items() if kind != "AVIF"})
    monkeypatch.setattr(Image, "ID", [kind for kind in Image.ID if kind != "AVIF"])
    _formats.cache_clear()
    with open_clip(path) as clip:
        assert len(list(clip)) == 5
    _formats.cache_clear()


def test_a_half_of_transparency_is_a_half_of_white(tmp_path):
    pictures = layers(True)
    pictures[:, 32:48, :, 3] = 85
    for form in ("webp", "png"):
        with open_clip(save(tmp_path / f"a.{form}", pictures, **FORMS[form][0])) as clip:
            assert np.abs(np.stack(list(clip)) - on_white(pictures)).max() <= 1


@pytest.mark.parametrize("form", ["webp", "gif", "png"])
def test_parts_of_an_animation(tmp_path, form):
    path, wanted = save(tmp_path / f"a.{form}", layers(False), **FORMS[form][0]), on_white(layers(False))
    for start, duration, part, times in (
        (0.0, 0.56, slice(0, 3), [0, 0.04, 0.54, 0.56]),
        (0.5, 0.2, slice(2, 5), [0.04, 0.07, 0.17, 0.2]),
        (0.54, 0.0, slice(2, 5), [0, 0.03, 0.13, 1.13]),
    ):
        with open_clip(path, start=start, duration=duration) as clip:
            pictures = list(clip)
            assert np.array_equal(np.stack(pictures), wanted[part])
            assert [clip.times.seconds(number) for number in range(len(times))] == pytest.approx(times)
            if form == "webp":
                assert clip.count == len(pictures)


@pytest.mark.parametrize("form", ["webp", "gif", "png"])
def test_pictures_that_flash_by_stay_as_long_as_in_a_browser(tmp_path, form):
    path = save(tmp_path / f"a.{form}", layers(False)[:4], [10, 200, 10, 300], **FORMS[form][0])
    with open_clip(path) as clip:
        assert len(list(clip)) == 4
        assert [clip.times.seconds(number) for number in range(5)] == pytest.approx([0, 0.1, 0.3, 0.4, 0.7])


@pytest.mark.parametrize("form", ["webp", "gif", "png"])
def test_pictures_that_do_not_say_how_long_stay_as_long_as_in_a_browser(tmp_path, form):
    path = save(tmp_path / f"a.{form}", layers(False)[:4], [0, 200, 0, 300], **FORMS[form][0])
    with open_clip(path) as clip:
        assert len(list(clip)) == 4
        assert [clip.times.seconds(number) for number in range(5)] == pytest.approx([0, 0.1, 0.3, 0.4, 0.7])


def test_an_animation_with_a_rate_has_no_times_of_its_own(tmp_path):
    with open_clip(save(tmp_path / "a.webp", layers(False), 40, **FORMS["webp"][0])) as clip:
        assert isinstance(clip, AnimationReader)
        assert clip.rate == 25
        assert len(list(clip)) == len(list(clip)) == 5
        assert clip.times is None


def test_an_animation_with_a_damaged_picture_is_read_up_to_it(tmp_path):
    path = tmp_path / "a.webp"
    content = bytearray(save(path, layers(False), **FORMS["webp"][0]).read_bytes())
    place = [at for at in range(len(content)) if content[at : at + 4] == b"VP8L"][3] + 8
    content[place + 5 : place + 40] = b"\xff" * 35
    path.write_bytes(content)
    with open_clip(path) as clip:
        assert len(list(clip)) == 3
        assert clip.breaks_off.startswith("a.webp breaks off: picture 4 is damaged (")
    path.write_bytes(content[:60])
    with pytest.raises(ValueError, match=r"a\.webp"):
        open_clip(path)


def test_one_picture_is_one_frame(tmp_path):
    for form in ("webp", "png", "gif", "jpg", "bmp"):
        Image.fromarray(layers(False)[0, ..., :3]).save(tmp_path / f"a.{form}")
        with open_clip(tmp_path / f"a.{form}") as clip:
            assert len(list(clip)) == 1


def test_pages_are_no_clip(tmp_path):
    with pytest.raises(ValueError, match=r"a\.tif is a TIFF picture and no clip: its pages have no times\."):
        open_clip(save(tmp_path / "a.tif", layers(False)))


@pytest.mark.parametrize("name", ["notes.txt", "art.ans", "read.me.nfo", "a.diz", "bytes.bin"])
def test_text_is_no_clip(tmp_path, name):
    (tmp_path / name).write_text("A list of clips: one.mp4, two.mp4.\n" * 200)
    with pytest.raises(ValueError, match=r"is no video: FFmpeg would show its bytes as text|is not a video"):
        open_clip(tmp_path / name)


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "a Git LFS pointer"),
        (b"<!DOCTYPE html><html><body>Not found</body></html>", "a web page"),
        (b"", "an empty file"),
    ],
)
def test_a_file_that_is_something_else_is_named(tmp_path, content, kind):
    (tmp_path / "a.mp4").write_bytes(content)
    with pytest.raises(ValueError, match=rf"^a\.mp4 is not a video but {kind}"):
        open_clip(tmp_path / "a.mp4")


@pytest.mark.parametrize(
    ("name", "codec", "pix_fmt", "off"),
    [
        ("a.mov", "png", "rgba", 0),
        ("a.mov", "qtrle", "argb", 0),
        ("a.mov", "prores_ks", "yuva444p10le", 5),
        ("a.mkv", "ffv1", "bgra", 0),
        ("a.webm", "libvpx-vp9", "yuva420p", 5),
        ("a.webm", "libvpx", "yuva420p", 5),
    ],
)
def test_transparent_pixels_of_clips_are_white(tmp_path, name, codec, pix_fmt, off):
    """Also of WebM, for which FFmpeg's own decoders leave them out; colors there have half the resolution."""
    picture = np.full((SIDE, SIDE, 4), (200, 60, 40, 255), np.uint8)
    picture[:32, :, 3], picture[32:, :32, 3] = 0, 85
    with av.open(str(tmp_path / name), "w") as made:
        stream = made.add_stream(codec, rate=10)
        stream.width, stream.height, stream.pix_fmt = SIDE, SIDE, pix_fmt
        stream.options, stream.codec_context.bit_rate = {"auto-alt-ref": "0"}, 4_000_000
        for _ in range(6):
            made.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgba")))
        made.mux(stream.encode(None))
    wanted = on_white(picture)
    for start in (0.0, 0.3):
        with open_clip(tmp_path / name, start=start) as clip:
            pictures = list(clip)
            assert clip.notes == (f"{name} has transparent pixels; they were put on white.",)
        assert len(pictures) == 6 - round(10 * start)
        for rows, columns in (
            (slice(4, 28), slice(4, 60)),
            (slice(36, 60), slice(4, 28)),
            (slice(36, 60), slice(36, 60)),
        ):
            assert np.abs(pictures[-1][rows, columns] - wanted[rows, columns]).max() <= off + 0.51


@pytest.mark.parametrize(("unused", "notes"), [(0, 0), (255, 0), (85, 1)])
def test_the_fourth_byte_of_avi_is_transparency_where_it_is_used(tmp_path, unused, notes):
    """Programs that write three colors in 32 bits leave the fourth byte at 0."""
    picture = np.full((SIDE, SIDE, 4), (200, 60, 40, unused), np.uint8)
    with av.open(str(tmp_path / "a.avi"), "w") as made:
        stream = made.add_stream("rawvideo", rate=10)
        stream.width, stream.height, stream.pix_fmt = SIDE, SIDE, "bgra"
        for _ in range(2):
            made.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgba")))
    with open_clip(tmp_path / "a.avi") as clip:
        first = next(iter(clip))
        assert len(clip.notes) == notes
    wanted = on_white(picture) if unused else picture[..., :3]
    assert np.abs(first - wanted).max() <= 0.51


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_camera_s_tags_in_pictures_of_a_clip_are_followed(tmp_path, orientation):
    """Motion JPEG of a camera, which has Exif in every picture, of a kind that PyAV 18 cannot name."""
    picture = np.zeros((48, SIDE, 3), np.uint8)
    picture[:24, :, 0] = picture[:, :32, 2] = 255
    tags = Image.Exif()
    tags[0x0112], tags[0x010F] = orientation, "a maker of cameras"
    content = io.BytesIO()
    Image.fromarray(picture).save(content, "JPEG", exif=tags, quality=95)
    with av.open(str(tmp_path / "a.avi"), "w") as made:
        stream = made.add_stream("mjpeg", rate=10)
        stream.width, stream.height, stream.pix_fmt = SIDE, 48, "yuvj420p"
        for number in range(3):
            packet = av.Packet(content.getvalue())
            packet.pts = packet.dts = number
            packet.time_base, packet.stream, packet.is_keyframe = Fraction(1, 10), stream, True
            made.mux(packet)
    with open_clip(Path(tmp_path / "a.avi")) as clip:
        pictures = list(clip)
    wanted = np.asarray(ImageOps.exif_transpose(Image.open(content)).convert("RGB")).astype(int)
    assert len(pictures) == 3
    assert pictures[0].shape == wanted.shape
    assert np.abs(pictures[0] - wanted).mean() < 3


def test_a_picture_for_programs_that_show_no_animation_is_left_out(tmp_path):
    pictures = layers(False)
    cover = np.concatenate([np.zeros_like(pictures[:1]) + np.uint8([0, 0, 0, 255]), pictures])
    with open_clip(save(tmp_path / "a.png", cover, default_image=True)) as clip:
        assert np.array_equal(np.stack(list(clip)), pictures[..., :3])
        assert clip.times.seconds(5) == pytest.approx(1.67)
