"""``mforce video``: its files, sound, cuts, resuming after Ctrl-C, and what it refuses."""

import json
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

pytest.importorskip("av")
pytest.importorskip("typer")
pytest.importorskip("OpenEXR")

import av
from typer.testing import CliRunner

from mforce import Pipeline
from mforce.cli.app import app
from mforce.evaluation.clips import render_clip
from mforce.mforce_core.depth.files import LEVELS, read_depth
from mforce.mforce_core.depth.images import FAR_LIMIT
from mforce.mforce_core.placement import LETTERBOX, place
from mforce.mforce_core.video import depth_sequence
from mforce.mforce_core.video.depth_sequence import PNG, Canvas, DepthSequence
from mforce.mforce_core.video.frame_depth import FrameDepth
from mforce.mforce_core.video.reader import VideoReader
from mforce.mforce_core.video.steady import Steadier, Steadiness, SteadyFrame
from mforce.mforce_core.video.writer import VideoWriter
from mforce.scenes import sample_layouts

RATE = 12
SHAPE = (50, 65)  # odd, and off the model's grid
OPTIONS = ["--size", "64x48", "--steps", "1", "--batch", "4", "--device", "cpu"]


def frames():
    """Two shots of six frames, (T, H, W, 3) uint8."""
    clips = [render_clip(sample_layouts(1, 3, number), 6, number, 65)[0] for number in range(2)]
    return (torch.cat(clips)[:, :, : SHAPE[0]].movedim(1, -1) * 255).round().to(torch.uint8).numpy()


def write(path, pictures, sound=False):
    """A lossless clip, by PyAV itself."""
    with av.open(str(path), "w") as container:
        video = container.add_stream("ffv1", rate=RATE)
        video.width, video.height, video.pix_fmt = pictures.shape[2], pictures.shape[1], "bgr0"
        audio = container.add_stream("aac", rate=48000) if sound else None
        for picture in pictures:
            container.mux(video.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(video.encode(None))
        if audio is not None:
            tone = np.sin(np.arange(48000) / 20).astype(np.float32)[None]
            frame = av.AudioFrame.from_ndarray(tone, format="fltp", layout="mono")
            frame.sample_rate, frame.pts = 48000, 0
            container.mux(audio.encode(frame))
            container.mux(audio.encode(None))
    return path


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> Path:
    return write(tmp_path_factory.mktemp("clip") / "walk.mkv", frames(), sound=True)


def run(*arguments):
    return CliRunner().invoke(app, ["video", *map(str, arguments)])


def depth_files(folder):
    return {path.name: path.read_bytes() for path in sorted((folder / "depth").iterdir())}


def test_a_clip_becomes_depth_files_and_videos(clip, tmp_path):
    out = tmp_path / "out"
    result = run(clip, *OPTIONS, "--side-by-side", "--output", out)
    assert result.exit_code == 0, result.output
    assert sorted(path.name for path in out.iterdir()) == ["depth", "depth.mp4", "metadata.json", "side_by_side.mp4"]
    metadata = json.loads((out / "metadata.json").read_text())
    assert (metadata["frames"], metadata["shots_start_at"]) == (12, [1, 7])

    pipeline = Pipeline.load("nano", device="cpu")
    job = pipeline.job("i2d", "", steps=1, size=(64, 48))
    fit = place(SHAPE, (48, 64), LETTERBOX)
    placed = torch.stack([torch.from_numpy(fit.place_photo(Image.fromarray(one))) for one in frames()])
    steadier, wanted = Steadier(FrameDepth(pipeline, job), Steadiness(batch=4)), []
    for batch in (placed.movedim(-1, 1).float() / 255).split(4):
        wanted += steadier(batch, fit.content)
    names = [f"depth.{number:06d}.png" for number in range(1, 13)]
    assert list(depth_files(out)) == names
    for name, frame in zip(names, wanted, strict=True):
        found, exact = read_depth(out / "depth" / name).depth, fit.restore_depth(frame.depth[None])[0].numpy()
        assert found.shape == SHAPE
        known = np.isfinite(exact)
        step = metadata["png"]["depth_per_step"]
        assert np.abs(found[known] - exact[known].clip(step, 65535 * step)).max() <= 0.51 * step

    with av.open(str(out / "depth.mp4")) as made, av.open(str(out / "side_by_side.mp4")) as beside:
        shown = [one.to_ndarray(format="rgb24") for one in made.decode(video=0)]
        assert made.streams.video[0].average_rate == beside.streams.video[0].average_rate == RATE
        assert len(made.streams.audio) == 1
        pair = [one.to_ndarray(format="rgb24") for one in beside.decode(video=0)]
    assert (len(shown), shown[0].shape, pair[0].shape) == (12, (50, 66, 3), (50, 130, 3))
    near = 1 / read_depth(out / "depth" / names[0]).depth
    gray = shown[0][:, :65].mean(-1)
    assert np.corrcoef(near[np.isfinite(near)], gray[np.isfinite(near)])[0, 1] > 0.95
    assert np.abs(pair[0][:, :65].astype(float) - frames()[0]).mean() < 8


def test_depth_on_bars_decides_neither_range_nor_step(tmp_path):
    fit = place((32, 64), (64, 64), LETTERBOX)
    depth = torch.full((64, 64), 0.01)
    depth[fit.content] = 2.0
    sequence = DepthSequence(tmp_path, PNG, Canvas((64, 64), LETTERBOX, True))
    sequence.add(SteadyFrame(depth, True), fit)
    assert sequence.progress.ranges == [(0.5, 0.5)]
    assert sequence.progress.step == pytest.approx(FAR_LIMIT * 2 / LEVELS)
    depth[fit.content] = torch.nan
    with pytest.raises(ValueError, match="Frame 2 came out without depth"):
        sequence.add(SteadyFrame(depth, False), fit)
    assert sequence.progress.done == len(list(tmp_path.iterdir())) == 1


def test_a_stopped_run_leaves_whole_frames_and_is_resumed_to_the_bit(clip, tmp_path, monkeypatch):
    usual, calls = Steadier.__call__, []

    def stopping(self, pictures, content):
        calls.append(len(pictures))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return usual(self, pictures, content)

    order = [clip, *OPTIONS, "--carry", "0.5", "--sequence", "exr"]
    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr(Steadier, "__call__", stopping)
        result = run(*order, "--output", out)
    assert result.exit_code == 130
    assert "Stopped after 8 frames" in result.output
    assert sorted(path.name for path in out.iterdir()) == ["depth", "progress.safetensors"]
    assert len(depth_files(out)) == 8
    assert np.isfinite(read_depth(out / "depth" / "depth.000008.exr").depth).any()

    refused = run(clip, *OPTIONS, "--output", out)
    assert refused.exit_code == 2
    assert "holds the beginning of another run" in refused.output
    resumed = run(*order, "--output", out)
    assert resumed.exit_code == 0, resumed.output
    assert "Going on after frame 8" in resumed.output
    whole = run(*order, "--output", tmp_path / "whole")
    assert whole.exit_code == 0
    first, second = (
        [read_depth(path).depth for path in sorted((folder / "depth").iterdir())]
        for folder in (out, tmp_path / "whole")
    )
    assert np.array_equal(np.stack(first), np.stack(second), equal_nan=True)
    again = run(*order, "--output", out)
    assert again.exit_code == 0
    assert "All frames were there already" in again.output
    for other in (["--side-by-side"], ["--colors", "magma"]):
        refused = run(*order, *other, "--output", out)
        assert refused.exit_code == 2
        assert "is of another --sequence, --side-by-side or --colors" in " ".join(refused.output.split())
    assert run(clip, *OPTIONS, "--output", out).exit_code == 2


def test_what_a_full_disk_stops_in_its_first_frames_is_resumed(clip, tmp_path, monkeypatch):
    usual, written = depth_sequence.write_16_bit, []

    def full(path, *arguments, **options):
        written.append(path)
        if len(written) == 3:  # of the first four
            raise OSError(28, "No space left on device")
        usual(path, *arguments, **options)

    order = [clip, *OPTIONS, "--output", tmp_path / "out"]
    with monkeypatch.context() as patch:
        patch.setattr(depth_sequence, "write_16_bit", full)
        result = run(*order)
        assert result.exit_code == 2
        assert "No space left on device" in result.output
    result = run(*order)
    assert result.exit_code == 0, result.output
    assert "Going on" not in result.output
    assert run(clip, *OPTIONS, "--output", tmp_path / "whole").exit_code == 0
    assert depth_files(tmp_path / "out") == depth_files(tmp_path / "whole")


def test_frames_of_a_clip_without_a_rate_keep_their_times(tmp_path):
    ticks = [0, 40, 300, 340, 1200, 1234, 1270, 2000]
    with av.open(str(tmp_path / "clip.mkv"), "w") as container:
        video = container.add_stream("ffv1", rate=25)
        video.width, video.height, video.pix_fmt = SHAPE[1], SHAPE[0], "bgr0"
        video.codec_context.time_base = Fraction(1, 1000)
        for tick, picture in zip(ticks, frames(), strict=False):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = tick, Fraction(1, 1000)
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
    result = run(tmp_path / "clip.mkv", *OPTIONS, "--side-by-side", "--output", tmp_path / "out")
    assert result.exit_code == 0, result.output
    for name in ("depth.mp4", "side_by_side.mp4"):
        with av.open(str(tmp_path / "out" / name)) as made:
            times = [frame.time for frame in made.decode(video=0)]
        assert times == pytest.approx([tick / 1000 for tick in ticks], abs=1e-3)


def jpeg(tmp_path, size):
    Image.new("RGB", size).save(tmp_path / "one.jpg")
    return (tmp_path / "one.jpg").read_bytes()


def test_what_cannot_be_used_is_a_sentence(clip, tmp_path):
    def refusal(path, *options):
        result = run(path, *OPTIONS, *options, "--output", tmp_path / "out")
        assert result.exit_code == 2, result.output
        assert not list(tmp_path.glob("out/depth*/*"))
        return " ".join(result.output.split())

    assert "There is no video" in refusal(tmp_path / "none.mp4")
    (tmp_path / "text.mp4").write_text("no video")
    assert "is not a video that can be read" in refusal(tmp_path / "text.mp4")
    with av.open(str(tmp_path / "sound.wav"), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), format="s16", layout="mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
    assert "has no video stream" in refusal(tmp_path / "sound.wav")
    assert "is a folder and no video" in refusal(tmp_path)
    assert "has one frame and is no clip" in refusal(write(tmp_path / "one.mkv", frames()[:1]))
    assert not (tmp_path / "out").exists()
    assert "--sequence is one of" in refusal(clip, "--sequence", "jpg")
    assert "overlap must be" in refusal(clip, "--carry", "0.5", "--overlap", "30")
    for alone in (("--flow",), ("--anchor-every", "5"), ("--overlap", "2")):
        assert "go with --carry: add it" in refusal(clip, *alone)


def test_an_output_that_is_a_file_stays_as_it_is(clip, tmp_path):
    (tmp_path / "out").write_text("kept")
    result = run(clip, *OPTIONS, "--output", tmp_path / "out", "--overwrite")
    assert result.exit_code == 2
    assert "is a file or a link: name a folder with --output" in " ".join(result.output.split())
    assert (tmp_path / "out").read_text() == "kept"


def test_depth_of_a_file_that_breaks_off_is_that_of_its_pictures(clip, tmp_path):
    content = clip.read_bytes()
    (tmp_path / "broken.mkv").write_bytes(content[: len(content) // 2])
    result = run(tmp_path / "broken.mkv", *OPTIONS, "--output", tmp_path / "out")
    assert result.exit_code == 0, result.output
    count = len(depth_files(tmp_path / "out"))
    assert 2 <= count < 12
    assert f"breaks off: its pictures end after {count / RATE:.1f} of 1.0 s" in " ".join(result.output.split())


def test_depth_of_a_clip_is_that_of_what_a_player_shows_and_it_is_said(tmp_path):
    with av.open(str(tmp_path / "wide.mov"), "w") as made:
        video, sound = made.add_stream("mpeg4", rate=RATE), made.add_stream("pcm_s16le", rate=8000)
        video.width, video.height, video.pix_fmt = 64, 50, "yuv420p"
        video.codec_context.sample_aspect_ratio = Fraction(2)
        for picture in frames()[:2, :, :64]:
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
            made.mux(video.encode(frame))
        made.mux(video.encode(None))
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 8000), np.int16), format="s16", layout="stereo")
        silence.sample_rate = 8000
        made.mux(sound.encode(silence))
    unknown = (tmp_path / "wide.mov").read_bytes().replace(b"sowt", b"apac")
    (tmp_path / "wide.mov").write_bytes(unknown)
    result = run(tmp_path / "wide.mov", *OPTIONS, "--side-by-side", "--output", tmp_path / "out")
    assert result.exit_code == 0, result.output
    said = " ".join(result.output.split())
    assert said.count("its pictures of 64x50 are read as 128x50, as players show them.") == 1
    assert said.count("wide.mov has sound of a kind that PyAV does not read: it is left out.") == 1
    assert read_depth(tmp_path / "out" / "depth" / "depth.000001.png").depth.shape == (50, 128)
    with av.open(str(tmp_path / "out" / "side_by_side.mp4")) as made:
        assert (made.streams.video[0].width, made.streams.video[0].height) == (256, 50)


def test_pictures_that_change_their_size_are_refused(tmp_path):
    (tmp_path / "mixed.mjpeg").write_bytes(2 * jpeg(tmp_path, (64, 48)) + jpeg(tmp_path, (32, 32)))
    with VideoReader(tmp_path / "mixed.mjpeg") as video, pytest.raises(ValueError, match="from 64x48 to 32x32"):
        list(video)


def test_a_clip_is_read_as_it_was_written(clip, tmp_path):
    with VideoReader(clip) as video:
        assert video.rate == Fraction(RATE)
        assert np.array_equal(np.stack(list(video)), frames())
    with VideoReader(clip, start=0.5, duration=0.25) as video:
        assert np.array_equal(np.stack(list(video)), frames()[6:9])
    with VideoWriter(tmp_path / "silent.mp4", Fraction(RATE)) as writer:
        for picture in frames():
            writer.write(picture)
    with VideoReader(tmp_path / "silent.mp4") as video:
        assert video.count == 12
        assert np.abs(np.stack(list(video))[:, :50, :65].astype(float) - frames()).mean() < 8
