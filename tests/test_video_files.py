"""Video files against PyAV alone: parts of them, uneven time stamps, colors."""

import io
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("av")

import av
from av.video.frame import PictureType

from mforce.mforce_core.video.reader import VideoReader
from mforce.mforce_core.video.timing import TimeStamps, uneven_times
from mforce.mforce_core.video.writer import VideoWriter

COUNT, SIDE = 90, 64
#: Key frames 15 apart, three frames between two that are shown in another order than they are decoded in, and what
#: precedes a key frame may depend on what follows it.
X264 = {"x264-params": "keyint=15:min-keyint=15:scenecut=0:bframes=3:b-adapt=0:open-gop=1", "crf": "20"}
#: Container and frames a second; 30000/1001 fits no round clock, and MPEG-TS does not begin at 0.
KINDS = {
    "mp4": ("mp4", Fraction(30000, 1001)),
    "mkv": ("matroska", Fraction(30000, 1001)),  # in milliseconds
    "ts": ("mpegts", Fraction(25)),
    "mov of 12.5": ("mov", Fraction(25, 2)),
}


class Counted(io.BytesIO):
    """A file that counts what is read of it."""

    taken = 0

    def read(self, size=-1):
        part = super().read(size)
        self.taken += len(part)
        return part


def write(container, rate):
    """A clip of noise, which is large for its length."""
    file, random = io.BytesIO(), np.random.default_rng(0)
    with av.open(file, "w", format=container) as made:
        stream = made.add_stream("libx264", rate=rate)
        stream.width, stream.height, stream.pix_fmt, stream.options = SIDE, SIDE, "yuv420p", X264
        for _ in range(COUNT):
            picture = random.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
            made.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        made.mux(stream.encode(None))
    return file.getvalue()


@pytest.fixture(scope="module", params=KINDS)
def clip(request):
    return write(*KINDS[request.param])


def decoded(content):
    """Times and pictures of all frames, by PyAV alone."""
    with av.open(io.BytesIO(content)) as file:
        frames = list(file.decode(video=0))
        assert {PictureType(frame.pict_type).name for frame in frames} == {"I", "P", "B"}
        return [frame.time for frame in frames], [frame.to_ndarray(format="rgb24") for frame in frames]


def read(content, start, duration=0.0):
    file = Counted(content)
    with VideoReader(file, start=start, duration=duration) as video:
        return list(video), file.taken


def test_a_part_is_what_decoding_everything_gives(clip):
    times, pictures = decoded(clip)
    assert len(times) == COUNT
    for number in range(0, COUNT, 7):  # on key frames, before and after them
        for start in (times[number], times[number] + 0.3 / 25, times[number] - 0.3 / 25):
            if start < 0:
                continue
            wanted = [picture for time, picture in zip(times, pictures, strict=True) if start <= time < start + 0.5]
            found, _ = read(clip, start, 0.5)
            assert len(found) == len(wanted)
            assert all(map(np.array_equal, found, wanted))


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "ts"])  # which has no list of its key frames
def test_what_lies_before_a_part_is_not_read(kind):
    clip = write(*KINDS[kind])
    times, pictures = decoded(clip)
    found, taken = read(clip, times[80])
    assert all(map(np.array_equal, found, pictures[80:]))
    assert len(found) == COUNT - 80
    assert taken < 0.7 * read(clip, 0.0)[1]


def test_a_part_beyond_the_end_is_empty(clip):
    assert read(clip, 100.0)[0] == []


def whole_and_broken(folder, container):
    """A clip of four seconds, and its first half."""
    path, random = folder / f"whole.{container}", np.random.default_rng(0)
    with av.open(str(path), "w", options={"movflags": "faststart"} if container == "mp4" else {}) as made:
        stream = made.add_stream("libx264", rate=12)
        stream.width, stream.height, stream.pix_fmt, stream.options = SIDE, SIDE, "yuv420p", {"g": "12"}
        for _ in range(48):
            picture = random.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
            made.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        made.mux(stream.encode(None))
    content = path.read_bytes()
    (folder / f"broken.{container}").write_bytes(content[: len(content) // 2])
    return path, folder / f"broken.{container}"


@pytest.mark.parametrize("container", ["mp4", "mkv"])
def test_a_file_that_breaks_off_says_so(tmp_path, container):
    whole, broken = whole_and_broken(tmp_path, container)
    with VideoReader(whole) as clip:
        assert len(list(clip)) == 48
        assert clip.breaks_off is None
    with VideoReader(broken) as clip:
        read = len(list(clip))
        assert clip.breaks_off == f"broken.{container} breaks off: its pictures end after {read / 12:.1f} of 4.0 s."
    assert 10 < read < 35
    with VideoReader(whole, start=3.0) as clip:
        assert len(list(clip)) == 12
        assert clip.breaks_off is None


def test_a_file_that_ends_within_its_last_picture_is_read_up_to_it(tmp_path):
    """PNG, of which no part of a picture can be decoded."""
    random = np.random.default_rng(0)
    with av.open(str(tmp_path / "whole.mov"), "w", options={"movflags": "faststart"}) as made:
        stream = made.add_stream("png", rate=25)
        stream.width, stream.height, stream.pix_fmt = SIDE, SIDE, "rgb24"
        for _ in range(50):
            picture = random.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
            made.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
    content = (tmp_path / "whole.mov").read_bytes()
    (tmp_path / "broken.mov").write_bytes(content[:-6000])
    with VideoReader(tmp_path / "broken.mov") as clip:
        count = len(list(clip))
        assert 45 < count < 50
        assert clip.breaks_off == f"broken.mov breaks off: its pictures end after {count / 25:.1f} of 2.0 s."


def test_a_clip_that_begins_late_does_not_break_off(tmp_path):
    with av.open(str(tmp_path / "late.mkv"), "w") as made:
        stream = made.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = SIDE, SIDE, "bgr0"
        for number in range(25):
            frame = av.VideoFrame.from_ndarray(np.zeros((SIDE, SIDE, 3), np.uint8))
            frame.pts = number + 100
            made.mux(stream.encode(frame))
        made.mux(stream.encode(None))
    with VideoReader(tmp_path / "late.mkv") as clip:
        assert clip.begins == pytest.approx(4.0)
        assert len(list(clip)) == 25
        assert clip.breaks_off is None


def test_a_cover_is_no_clip(tmp_path):
    """A picture of an album before a clip, and alone."""
    for name, codecs in (("song.mp4", ["mjpeg"]), ("clip.mp4", ["mjpeg", "libx264"])):
        with av.open(str(tmp_path / name), "w") as made:
            streams = [made.add_stream(codec, rate=25) for codec in codecs]
            for stream in streams:
                cover = stream is streams[0]
                stream.width, stream.height = (2 * SIDE if cover else SIDE), SIDE
                stream.pix_fmt = "yuvj420p" if cover else "yuv420p"
            streams[0].disposition = av.stream.Disposition.attached_pic.value
            for stream in streams:
                picture = np.zeros((stream.height, stream.width, 3), np.uint8)
                made.mux(stream.encode(av.VideoFrame.from_ndarray(picture)))
                made.mux(stream.encode(None))
    with VideoReader(tmp_path / "clip.mp4") as clip:
        assert next(iter(clip)).shape == (SIDE, SIDE, 3)
    with pytest.raises(ValueError, match=r"song\.mp4 has no video stream, only sound, a cover or data"):
        VideoReader(tmp_path / "song.mp4")


def test_pictures_of_a_kind_that_nobody_knows_are_named(tmp_path):
    write_uneven(tmp_path / "clip.mov", "mjpeg")
    content = (tmp_path / "clip.mov").read_bytes()
    (tmp_path / "clip.mov").write_bytes(content.replace(b"jpeg", b"zzzz"))
    with pytest.raises(ValueError, match=r"clip\.mov is of a kind that PyAV does not read\. Convert it"):
        VideoReader(tmp_path / "clip.mov")


@pytest.mark.parametrize(("rate", "height"), [(Fraction(25), 576), (Fraction(30000, 1001), 480)])
def test_raw_dv_has_the_rate_of_its_system(tmp_path, rate, height):
    with av.open(str(tmp_path / "clip.dv"), "w") as made:
        stream = made.add_stream("dvvideo", rate=rate)
        stream.width, stream.height, stream.pix_fmt = 720, height, "yuv420p" if height == 576 else "yuv411p"
        for _ in range(5):
            made.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((height, 720, 3), np.uint8))))
    with VideoReader(tmp_path / "clip.dv") as clip:
        assert (clip.rate, clip.count, len(list(clip)), clip.times) == (rate, 5, 5, None)


@pytest.mark.parametrize("container", ["avi", "mp4", "mkv"])
@pytest.mark.parametrize("encoding", ["latin-1", "gbk"])
def test_titles_in_other_letters_stop_nothing(tmp_path, container, encoding):
    """As programs of the time before UTF-8 wrote them."""
    title = {"latin-1": "Über", "gbk": "视频"}[encoding]
    path = tmp_path / f"clip.{container}"
    with av.open(str(path), "w") as made:
        made.metadata["title"] = "12345"
        stream = made.add_stream("mjpeg", rate=25)
        stream.width, stream.height, stream.pix_fmt = SIDE, SIDE, "yuvj420p"
        for _ in range(3):
            made.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((SIDE, SIDE, 3), np.uint8))))
        made.mux(stream.encode(None))
    content = path.read_bytes()
    assert b"12345" in content
    path.write_bytes(content.replace(b"12345", title.encode(encoding).ljust(5)))
    with VideoReader(path) as clip:
        assert len(list(clip)) == 3
    with VideoWriter(tmp_path / "made.mp4", Fraction(25), path) as writer:
        writer.write(np.zeros((SIDE, SIDE, 3), np.uint8))


def test_names_that_ffmpeg_takes_for_protocols_are_files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pictures = np.random.default_rng(0).integers(0, 256, (3, SIDE, SIDE, 3), dtype=np.uint8)
    with VideoWriter(Path("take: 2 %03d.mp4"), Fraction(12)) as made:
        for picture in pictures:
            made.write(picture)
    with VideoReader(Path("take: 2 %03d.mp4")) as clip:
        assert len(list(clip)) == 3


def test_what_is_no_clip_is_named_for_what_it_is(tmp_path):
    with pytest.raises(ValueError, match="is a folder and no video"):
        VideoReader(tmp_path)


def test_a_picture_that_is_damaged_is_named_with_its_time(tmp_path):
    content = bytearray(whole_and_broken(tmp_path, "mp4")[0].read_bytes())
    middle = len(content) // 2
    content[middle : middle + 20000] = bytes(np.random.default_rng(1).integers(0, 256, 20000, dtype=np.uint8))
    (tmp_path / "d.mp4").write_bytes(content)
    with VideoReader(tmp_path / "d.mp4") as clip, pytest.raises(ValueError, match=r"a picture after [12]\.\d s cannot"):
        list(clip)


#: Milliseconds at which pictures are shown, as a telephone or a recorder of screens has them; the last is the end.
UNEVEN = [0, 33, 70, 105, 400, 420, 1700, 1733, 1766, 1801, 2500, 2600]
CONTAINERS = {"mp4": "libx264", "mov": "libx264", "mkv": "ffv1", "webm": "libvpx-vp9"}


def write_uneven(path, codec, ticks=UNEVEN):
    unit, ends = Fraction(1, 1000), dict(pairwise(ticks))
    with av.open(str(path), "w") as made:
        stream = made.add_stream(codec, rate=25)
        stream.width, stream.height = SIDE, SIDE
        stream.pix_fmt = {"ffv1": "bgr0", "mjpeg": "yuvj420p"}.get(codec, "yuv420p")
        stream.codec_context.time_base = unit
        frames = [av.VideoFrame.from_ndarray(np.full((SIDE, SIDE, 3), 20 * n, np.uint8)) for n in range(len(ends))]
        for frame, tick in zip(frames, ends, strict=True):
            frame.pts, frame.time_base = tick, unit
        for frame in (*frames, None):
            for packet in stream.encode(frame):
                packet.duration = ends[packet.pts] - packet.pts
                made.mux(packet)


def copied(path, to, **part):
    """The pictures and times of a copy by reader and writer."""
    with VideoReader(path, **part) as clip:
        pictures = list(clip)
        with VideoWriter(to, clip.rate, sound_start=clip.begins, times=clip.times) as writer:
            for picture in pictures:
                writer.write(picture)
    with av.open(str(to)) as made:
        length = float(made.streams.video[0].duration * made.streams.video[0].time_base)
        frames = list(made.decode(video=0))
    return [frame.time for frame in frames], length, [frame.to_ndarray(format="rgb24") for frame in frames]


@pytest.mark.parametrize("kind", CONTAINERS)
def test_pictures_are_shown_when_they_were_shown(tmp_path, kind):
    path = tmp_path / f"clip.{kind}"
    write_uneven(path, CONTAINERS[kind])
    with av.open(str(path)) as file:
        wanted = [frame.time for frame in file.decode(video=0)]
    assert wanted == pytest.approx([tick / 1000 for tick in UNEVEN[:-1]], abs=1e-4)
    times, length, pictures = copied(path, tmp_path / "made.mp4")
    assert times == pytest.approx(wanted, abs=1e-4)
    assert length >= times[-1] + 0.03
    assert [round(picture.mean() / 20) for picture in pictures] == list(range(len(UNEVEN) - 1))


def test_the_last_picture_stays_as_long_as_it_did(tmp_path):
    write_uneven(tmp_path / "clip.mov", "mjpeg", [0, 40, 500, 560, 3000])
    with av.open(str(tmp_path / "clip.mov")) as file:
        assert [*file.decode(video=0)][-1].duration * file.streams.video[0].time_base == pytest.approx(2.44)
    _, length, _ = copied(tmp_path / "clip.mov", tmp_path / "made.mp4")
    assert length == pytest.approx(3.0, abs=1e-3)
    with VideoReader(tmp_path / "clip.mov") as clip:
        assert len(list(clip)) == 4
        assert clip.breaks_off is None


def test_the_last_picture_in_an_order_of_decoding_stays_as_long_as_it_did(tmp_path):
    """A copy of an uneven MP4 with pictures that are decoded before they are shown, and a copy of the copy."""
    write_uneven(tmp_path / "clip.mkv", "ffv1", UNEVEN)
    times, length, _ = copied(tmp_path / "clip.mkv", tmp_path / "made.mp4")
    assert length == pytest.approx(2.6, abs=1e-3)
    with av.open(str(tmp_path / "made.mp4")) as made:
        assert any(packet.pts != packet.dts for packet in made.demux(video=0) if packet.dts is not None)
    with VideoReader(tmp_path / "made.mp4") as clip:
        assert len(list(clip)) == len(UNEVEN) - 1
        assert clip.times.seconds(len(UNEVEN) - 1) == pytest.approx(2.6, abs=1e-3)
    assert copied(tmp_path / "made.mp4", tmp_path / "again.mp4")[:2] == (times, pytest.approx(2.6, abs=1e-3))


def test_a_picture_that_is_the_last_in_both_orders_stays_as_long_as_it_did(tmp_path):
    """As pictures are that have nothing in common with those before them."""
    random = np.random.default_rng(0)
    times = TimeStamps([0, 40, 540, 570, 670, 1670], Fraction(1, 1000))
    with VideoWriter(tmp_path / "made.mp4", Fraction(3), times=times) as writer:
        for _ in range(5):
            writer.write(random.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8))
    with av.open(str(tmp_path / "made.mp4")) as made:
        packets = [packet for packet in made.demux(video=0) if packet.size]
        assert packets[-1].pts == max(packet.pts for packet in packets) > packets[-1].dts
        assert made.duration == 1_670_000  # microseconds
    with VideoReader(tmp_path / "made.mp4") as clip:
        assert len(list(clip)) == 5
        assert [clip.times.seconds(number) for number in range(6)] == pytest.approx([0, 0.04, 0.54, 0.57, 0.67, 1.67])


def test_the_last_picture_of_a_part_ends_with_it(tmp_path):
    write_uneven(tmp_path / "clip.mkv", "ffv1", UNEVEN)
    for duration, end in ((1.5, 1.5), (0.41, 0.41), (1.72, 1.72)):  # pictures begin at 0.42, 1.7 and 1.733
        with VideoReader(tmp_path / "clip.mkv", duration=duration) as clip:
            count = len(list(clip))
            assert clip.times.seconds(count) == pytest.approx(end, abs=1e-3)


def test_a_part_of_an_uneven_clip_stays_with_its_sound(tmp_path):
    """The sound is copied from second 0.41 on; the first picture after it comes 10 ms later."""
    write_uneven(tmp_path / "clip.mkv", "ffv1")
    times, _, _ = copied(tmp_path / "clip.mkv", tmp_path / "made.mp4", start=0.41, duration=1.4)
    assert times == pytest.approx([0.01, 1.29, 1.323, 1.356, 1.391], abs=1e-3)


def test_units_finer_than_a_file_can_count_are_rounded(tmp_path):
    ticks = [tick * 1_000_000 for tick in UNEVEN]
    stamps = uneven_times(ticks, Fraction(1, 1_000_000_000), Fraction(10), 0.0)
    assert stamps.unit == Fraction(1, 90_000)
    assert [stamps.seconds(number) for number in range(len(UNEVEN))] == [tick / 1000 for tick in UNEVEN]


def test_clips_with_a_rate_have_no_time_stamps_of_their_own(clip):
    for start in (0.0, 1.0):
        with VideoReader(io.BytesIO(clip), start=start) as video:
            assert len(list(video)) > COUNT / 2
            assert video.times is None


@pytest.mark.parametrize("ticks", [[0, 40, 40, 200, 240], [0, 300, 100, 400, 440]])
def test_time_stamps_that_do_not_rise_count_for_nothing(ticks):
    assert uneven_times(ticks, Fraction(1, 1000), Fraction(25), 0.0) is None


#: Weights of red, green and blue in luma, ITU-R BT.709 and BT.601.
LUMA = {"BT.709": (0.2126, 0.7152, 0.0722), "BT.601": (0.299, 0.587, 0.114)}


def from_ycbcr(planes, weights):
    """Limited range to RGB by the formulas of the standard."""
    red, green, blue = weights
    luma, *chroma = (
        (plane - low) * 255 / span for plane, low, span in zip(planes, (16, 128, 128), (219, 224, 224), strict=True)
    )
    r, b = luma + 2 * (1 - red) * chroma[1], luma + 2 * (1 - blue) * chroma[0]
    return np.stack([r, (luma - red * r - blue * b) / green, b], -1)


def test_colors_are_those_that_the_file_names(tmp_path):
    colors = np.array([[200, 30, 40], [20, 180, 60], [30, 50, 220], [230, 220, 40], [128, 128, 128], [0, 0, 0]])
    with VideoWriter(tmp_path / "made.mp4", Fraction(25)) as writer:
        for color in colors:
            writer.write(np.broadcast_to(color.astype(np.uint8), (SIDE, SIDE, 3)))
    with av.open(str(tmp_path / "made.mp4")) as made:
        codec = made.streams.video[0].codec_context
        tags = codec.color_primaries, codec.color_trc, codec.colorspace, codec.color_range
        assert tags == (1, 1, 1, 1)  # BT.709 in all three, limited range
        frames = [frame.to_ndarray().astype(float) for frame in made.decode(video=0)]
    middle, half = SIDE // 2, SIDE // 4
    luma = np.array([frame[middle, middle] for frame in frames])
    chroma = np.array([frame[SIDE:].reshape(2, SIDE // 2, SIDE // 2)[:, half, half] for frame in frames]).T
    assert np.abs(from_ycbcr((luma, *chroma), LUMA["BT.709"]) - colors).max() <= 2
    assert np.abs(from_ycbcr((luma, *chroma), LUMA["BT.601"]) - colors).max() > 10
    with VideoReader(tmp_path / "made.mp4") as video:  # FFmpeg rounds down on its way to RGB
        read = np.array([picture[middle, middle] for picture in video]).astype(int)
    assert np.abs(read - colors).max() <= 3
