"""Run by ComfyUI's Python: MF Video to Depth Video on nano; results as JSON.

Usage: depth_video_runs.py PACK_ROOT FOLDER
"""

import json
import sys
import weakref
from fractions import Fraction
from pathlib import Path

import node_calls
from pack_loading import load_pack

SIDE, RATE, COUNT = 64, 12, 12


def main(root: Path, folder: Path) -> None:
    load_pack(root)
    import av
    import comfy.model_management
    import comfy.utils
    import folder_paths
    import numpy as np
    import torch
    from comfy_api.latest import InputImpl, Types
    from pack_under_test.mforce_core.depth.files import read_depth
    from pack_under_test.nodes.depth_detokenize import MFDepthDetokenize
    from pack_under_test.nodes.host import clip_depth, depth_video
    from pack_under_test.nodes.host.model_loader import load_joint_model
    from pack_under_test.nodes.host.nano_parts import FOLDER, load_clip, load_vae
    from pack_under_test.nodes.video_depth import MFVideoDepth
    from pack_under_test.nodes.video_to_depth_video import MFVideoToDepthVideo

    output, temp = folder / "output", folder / "temp"
    folder_paths.set_output_directory(str(output))
    folder_paths.set_temp_directory(str(temp))
    model, vae, text = load_joint_model(str(FOLDER), dequantized=True), load_vae(), load_clip()
    positive = text.encode_from_tokens_scheduled(text.tokenize(""))
    given = {"model": model, "positive": positive, "vae": vae, "width": SIDE, "height": SIDE, "steps": 2}
    results = {}

    def run(video, **options):
        return node_calls.run(MFVideoToDepthVideo, **{**given, "video": video, **options})[0]

    def message(video, **options) -> str:
        return node_calls.message(MFVideoToDepthVideo, **{**given, "video": video, **options})

    def there(place):
        return sorted(str(path.relative_to(place)) for path in place.rglob("*"))

    def written(path, pictures, sound=None, ticks=None):
        """A lossless clip, by PyAV itself, at the rate or at milliseconds."""
        with av.open(str(path), "w") as container:
            stream = container.add_stream("ffv1", rate=RATE)
            stream.width, stream.height, stream.pix_fmt = pictures.shape[2], pictures.shape[1], "bgr0"
            audio = None if sound is None else container.add_stream("aac", rate=48000, layout="mono")
            if ticks is not None:
                stream.codec_context.time_base = Fraction(1, 1000)
            for number, picture in enumerate(pictures):
                frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
                if ticks is not None:
                    frame.pts, frame.time_base = ticks[number], Fraction(1, 1000)
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
            if audio is not None:
                frame = av.AudioFrame.from_ndarray(sound[None], format="fltp", layout="mono")
                frame.sample_rate, frame.pts = 48000, 0
                container.mux(audio.encode(frame))
                container.mux(audio.encode(None))
        return InputImpl.VideoFromFile(str(path))

    # A wall with a floor, and a block that moves before it; half a second of silence, then a tone.
    frames = np.full((COUNT, SIDE, SIDE, 3), 150, np.uint8)
    frames[:, 40:] = 130, 90, 50
    for number, frame in enumerate(frames):
        frame[30:50, 2 + 3 * number : 18 + 3 * number] = 200, 25, 25
    sound = np.sin(np.arange(48000) / 20).astype(np.float32)
    sound[:24000] = 0
    clip = written(folder / "clip.mkv", frames, sound)

    # Against MF Video Depth: the numbers of the files, and what the video shows.
    depth, _, preview, _ = node_calls.run(MFVideoDepth, **{**given, "clip": clip})
    wanted = MFDepthDetokenize.execute(depth).args[4][..., 0]
    made = run(clip, depth_files="exr", filename_prefix="depth/walk")
    found = [read_depth(output / "depth" / "walk_00001" / f"depth.{n + 1:06d}.exr").depth for n in range(COUNT)]
    found = torch.from_numpy(np.stack(found))
    known = (wanted > 0) & found.isfinite()
    results["numbers"] = [float(known.float().mean()), float((found / wanted - 1)[known].abs().max())]
    parts = made.get_components()
    results["kind"] = [type(made).__name__, made.get_stream_source().startswith(str(temp)), made.get_container_format()]
    results["shape"] = [list(parts.images.shape), float(parts.frame_rate)]
    shown = torch.stack([preview[known].flatten(), parts.images[known].flatten()])
    results["looks like the preview"] = float(torch.corrcoef(shown)[0, 1])
    quiet, loud = (part.abs().mean() for part in parts.audio["waveform"][0, 0].split(24000)[:2])
    results["sound"] = [float(quiet), float(loud)]
    results["output"], results["temp"] = there(output), len(there(temp))

    # Side by side, at the size of the video and at the model's; colors; a clip from pictures, odd and with sound.
    wide = np.pad(frames, ((0, 0), (8, 9), (40, 41), (0, 0)), mode="edge")
    wide_clip = written(folder / "wide.mkv", wide)
    beside = run(wide_clip, layout="side by side").get_components().images
    results["beside"] = [list(beside.shape), float((beside[:, :81, :145] - torch.from_numpy(wide) / 255).abs().mean())]
    small = run(
        InputImpl.VideoFromFile(str(folder / "wide.mkv")), layout="side by side", fit="crop", original_size=False
    )
    middle = torch.from_numpy(wide[:, :, 32:113]).movedim(-1, 1) / 255
    middle = torch.nn.functional.interpolate(middle, (SIDE, SIDE), mode="bicubic", antialias=True).movedim(1, -1)
    small = small.get_components().images
    results["beside, small"] = [list(small.shape), float((small[:, :, :SIDE] - middle).abs().mean())]
    colored = run(clip, colors="spectral").get_components().images
    results["colored"] = float((colored.amax(-1) - colored.amin(-1)).mean())
    audio = {"waveform": torch.from_numpy(sound)[None, None], "sample_rate": 48000}
    pictures = torch.from_numpy(wide).float() / 255
    parts = Types.VideoComponents(images=pictures, audio=audio, frame_rate=Fraction(RATE))
    parts = run(InputImpl.VideoFromComponents(parts)).get_components()
    quiet, loud = (part.abs().mean() for part in parts.audio["waveform"][0, 0].split(24000)[:2])
    results["of pictures"] = [list(parts.images.shape), float(parts.frame_rate), float(quiet), float(loud)]
    results["silent"] = run(wide_clip).get_components().audio is None

    # A part, from the tone on.
    parts = run(clip.as_trimmed(start_time=0.5, duration=0.25)).get_components()
    results["trimmed"] = [len(parts.images), float(parts.audio["waveform"][0, 0, 2000:10000].abs().mean())]

    # A clip without a rate: when its pictures are shown.
    ticks = [0, 40, 75, 700, 733, 1500, 1510, 1600]
    unsteady = run(written(folder / "unsteady.mkv", frames[: len(ticks)], ticks=ticks)).get_stream_source()
    with av.open(unsteady) as container:
        results["unsteady"] = [[round(1000 * frame.time) for frame in container.decode(video=0)], ticks]

    # However long a clip is, few of its frames are in memory at once.
    usual, alive, most = clip_depth.Clip.pictures, weakref.WeakValueDictionary(), []

    def watched(self):
        for number, picture in enumerate(usual(self)):
            alive[number, len(most)] = picture
            most.append(len(alive))
            yield picture

    clip_depth.Clip.pictures = watched
    long = written(folder / "long.mkv", np.concatenate([frames] * 4))
    run(long, frames_at_once=4, steps=1)
    clip_depth.Clip.pictures = usual
    results["alive"] = [len(most), max(most)]

    # A file that breaks off: depth of what is there, and one notice.
    content = (folder / "long.mkv").read_bytes()
    (folder / "broken.mkv").write_bytes(content[: len(content) // 2])
    noticed: list[str] = []
    depth_video.notice = noticed.append
    broken = run(InputImpl.VideoFromFile(str(folder / "broken.mkv")), steps=1)
    results["broken"] = [broken.get_frame_count(), [*noticed]]

    # Pixels twice as wide as high, and a sound that nobody knows: what is shown has square pixels, and both are said.
    noticed.clear()
    clip_depth.notice = noticed.append
    with av.open(str(folder / "wide.mov"), "w") as container:
        stream, audio = container.add_stream("mpeg4", rate=RATE), container.add_stream("pcm_s16le", rate=8000)
        stream.width, stream.height, stream.pix_fmt = SIDE, SIDE, "yuv420p"
        stream.codec_context.sample_aspect_ratio = Fraction(2)
        for picture in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 16000), np.int16), format="s16", layout="stereo")
        frame.sample_rate = 8000
        container.mux(audio.encode(frame))
    content = (folder / "wide.mov").read_bytes()
    (folder / "wide.mov").write_bytes(content.replace(b"sowt", b"apac"))
    wide_pixels = InputImpl.VideoFromFile(str(folder / "wide.mov"))
    parts = run(wide_pixels, steps=1).get_components()
    _, image, _, _ = node_calls.run(MFVideoDepth, **{**given, "clip": wide_pixels, "fit": "keep size", "steps": 1})
    results["as shown"] = [list(parts.images.shape), list(image.shape), noticed]

    # Sentences.
    with av.open(str(folder / "sound.wav"), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), format="s16", layout="mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
    before = there(output), there(temp)
    results["no pictures"] = message(InputImpl.VideoFromFile(str(folder / "sound.wav")))
    results["one frame"] = message(written(folder / "one.mkv", frames[:1]))
    results["no frame"] = message(clip.as_trimmed(start_time=5, strict_duration=False))
    from PIL import Image

    for number, size in enumerate([(64, 48), (64, 48), (32, 32)]):
        Image.new("RGB", size).save(folder / f"{number}.jpg")
    (folder / "mixed.mjpeg").write_bytes(b"".join((folder / f"{number}.jpg").read_bytes() for number in range(3)))
    mixed = InputImpl.VideoFromFile(str(folder / "mixed.mjpeg"))
    results["mixed"] = message(mixed, depth_files="png (16-bit)", frames_at_once=2)
    results["two sizes"] = message(clip, width=100, fit="crop")
    results["outside"] = message(clip, depth_files="exr", filename_prefix="../outside")
    results["long name"] = message(clip, depth_files="exr", filename_prefix="a" * 300)
    results["no video"] = message("clip.mkv")
    results["nothing is left"] = (there(output), there(temp)) == before

    # Interrupted while depth is made and while the video is written: nothing is left, and the next run works.
    def stopping_at(number, values):
        def hook(value, total, preview, node_id=None):
            values.append((value, preview is not None))
            if len(values) == number:
                comfy.model_management.interrupt_current_processing()

        return hook

    comfy.utils.PROGRESS_THROTTLE_MIN_INTERVAL = 0.0  # core leaves out what comes too soon
    comfy.utils.PROGRESS_THROTTLE_MIN_PERCENT = 0.0
    results["interrupted"] = []
    for number in (2, 5):  # of three batches and twelve frames
        values = []
        comfy.utils.set_progress_bar_global_hook(stopping_at(number, values))
        try:
            run(clip, depth_files="png (16-bit)", frames_at_once=4)
        except comfy.model_management.InterruptProcessingException:
            results["interrupted"].append([values, (there(output), there(temp)) == before])
    values = []
    comfy.utils.set_progress_bar_global_hook(stopping_at(0, values))
    again = run(clip, depth_files="png (16-bit)", frames_at_once=4)
    results["bar"] = values
    results["after it"] = [again.get_frame_count(), len(there(output)) - len(before[0])]
    print(json.dumps(results))


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
