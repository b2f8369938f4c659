"""The sound of clips: where it stays as it is, where it becomes AAC, and that it stays in time."""

import shutil
from fractions import Fraction

import numpy as np
import pytest

pytest.importorskip("av")

import av

from mforce.mforce_core.video.reader import VideoReader
from mforce.mforce_core.video.writer import VideoWriter

SIDE, RATE = 64, 25
#: Seconds of silence before a tone.
SILENCE = 0.5


def write(path, codec, *, rate=48000, layout="stereo", form="fltp", gap=0.0, seconds=1):
    """A clip of pictures and a tone; ``gap`` seconds of the file have no sound before it comes."""
    sound = np.sin(np.arange(seconds * rate) / rate * 2400) * 0.9
    sound[: round(SILENCE * rate)] = 0
    with av.open(str(path), "w", options={"strict": "experimental"}) as made:
        video = made.add_stream("mpeg4", rate=RATE)
        audio = made.add_stream(codec, rate=rate, layout=layout, options={"strict": "experimental"})
        video.width, video.height, video.pix_fmt = SIDE, SIDE, "yuv420p"
        for number in range(seconds * RATE):
            picture = np.full((SIDE, SIDE, 3), number, np.uint8)
            made.mux(video.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        made.mux(video.encode(None))
        channels = audio.codec_context.channels
        kind = np.int16 if form.startswith("s16") else np.float32
        samples = np.repeat(sound[None], channels, 0) * (32767 if kind == np.int16 else 1)
        for number, part in enumerate(np.split(samples.astype(kind), 2 * seconds, 1)):
            late = round((gap if number else 0) * rate)
            flat = part if form.endswith("p") else np.ascontiguousarray(part.T).reshape(1, -1)
            frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(flat), format=form, layout=layout)
            frame.sample_rate, frame.pts = rate, number * part.shape[1] + late
            frame.time_base = Fraction(1, rate)
            made.mux(audio.encode(frame))
        made.mux(audio.encode(None))
    return path


def copied(source, to, **part):
    """Kind of a copy's sound, and when it is loud, from and to; what was said."""
    with (
        VideoReader(source, **part) as clip,
        VideoWriter(to, clip.rate, source, sound_start=clip.begins) as writer,
    ):
        for picture in clip:
            writer.write(picture)
    with av.open(str(to)) as made:
        if not made.streams.audio:
            return None, writer.silent
        stream = made.streams.audio[0]
        resampler, loud = av.AudioResampler("fltp", "mono", 48000), []
        for frame in (*made.decode(stream), None):
            for part in filter(None, resampler.resample(frame)):
                times = part.time + np.arange(part.samples) / 48000
                loud += times[np.abs(part.to_ndarray()[0]) > 0.4].tolist()
        kind = stream.codec_context.codec.canonical_name, stream.layout.nb_channels
    return (*kind, loud[0], loud[-1]), writer.silent


#: Containers and kinds of sound: with samples as the encoder takes them, and whether MP4 keeps it as it is.
KINDS = {
    "aac": ("mp4", "aac", {}, "aac"),
    "mp3": ("mp4", "libmp3lame", {"form": "s16p"}, "mp3"),
    "mp3 in avi": ("avi", "libmp3lame", {"form": "s16p"}, "mp3"),
    "opus": ("mkv", "libopus", {"form": "s16"}, "opus"),
    "flac": ("mkv", "flac", {"form": "s16"}, "flac"),
    "ac3": ("ts", "ac3", {}, "ac3"),
    "alac": ("mov", "alac", {"form": "s16p"}, "alac"),
    "pcm of a camera": ("mov", "pcm_s16le", {"form": "s16"}, "aac"),
    "pcm of 192 kHz": ("mkv", "pcm_f32le", {"form": "flt", "rate": 192000}, "aac"),
    "pcm of 8 kHz": ("avi", "pcm_s16le", {"form": "s16", "rate": 8000, "layout": "mono"}, "aac"),
    "pcm of 5.1": ("mkv", "pcm_s16le", {"form": "s16", "layout": "5.1"}, "aac"),
    "pcm of quadro": ("mkv", "pcm_s16le", {"form": "s16", "layout": "quad"}, "aac"),
    "vorbis": ("mkv", "vorbis", {"rate": 44100}, "aac"),
    "mpeg": ("ts", "mp2", {"form": "s16"}, "aac"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_sound_goes_along_and_stays_in_time(tmp_path, kind):
    container, codec, how, wanted = KINDS[kind]
    source = write(tmp_path / f"clip.{container}", codec, **how)
    (found, channels, begins, ends), silent = copied(source, tmp_path / "made.mp4")
    assert found == wanted
    assert channels == {"mono": 1, "5.1": 6}.get(how.get("layout"), 2)
    assert silent is None
    assert begins == pytest.approx(SILENCE, abs=0.03)
    assert ends == pytest.approx(1.0, abs=0.05)


@pytest.mark.parametrize("codec", ["aac", "pcm_s16le"])
@pytest.mark.parametrize("start", [0.24, 0.6])
def test_the_sound_of_a_part_stays_with_its_pictures(tmp_path, codec, start):
    source = write(tmp_path / "clip.mkv", codec, form="fltp" if codec == "aac" else "s16")
    (_, _, begins, ends), _ = copied(source, tmp_path / "made.mp4", start=start)
    assert begins == pytest.approx(max(SILENCE - start, 0), abs=0.06)
    assert ends == pytest.approx(1.0 - start, abs=0.06)


@pytest.mark.parametrize(("codec", "form"), [("aac", "fltp"), ("mp2", "s16")])
@pytest.mark.parametrize("start", [0.0, 0.24])
def test_sound_stays_with_the_pictures_of_a_clip_that_does_not_begin_at_0(tmp_path, codec, form, start):
    source = write(tmp_path / "clip.ts", codec, form=form)
    with VideoReader(source) as whole:
        assert whole.begins > 0
        begins = whole.begins
    part = {"start": begins + start} if start else {}
    (_, _, begins, _), _ = copied(source, tmp_path / "made.mp4", **part)
    assert begins == pytest.approx(SILENCE - start, abs=0.06)


def test_sound_that_is_missing_for_a_while_is_silent_meanwhile(tmp_path):
    source = write(tmp_path / "clip.mkv", "pcm_s16le", form="s16", gap=1.3, seconds=2)
    (_, _, begins, ends), _ = copied(source, tmp_path / "made.mp4")
    assert begins == pytest.approx(SILENCE + 1.3, abs=0.03)
    assert ends == pytest.approx(2.0, abs=0.06)


def test_sound_that_cannot_be_read_is_named(tmp_path):
    source = write(tmp_path / "clip.mov", "pcm_s16le", form="s16")
    content = source.read_bytes()
    assert content.count(b"sowt") == 1
    unknown = shutil.copy(source, tmp_path / "unknown.mov")
    unknown.write_bytes(content.replace(b"sowt", b"apac"))
    kind, silent = copied(unknown, tmp_path / "made.mp4")
    assert kind is None
    assert silent == "unknown.mov has sound of a kind that PyAV does not read: it is left out."
