"""Run by ComfyUI's Python: MF Video Depth on nano, on frames and on video files; results as JSON.

Usage: video_runs.py PACK_ROOT FOLDER
"""

import json
import sys
from fractions import Fraction
from pathlib import Path

import node_calls
from pack_loading import load_pack

SIDE = 64


def main(root: Path, folder: Path) -> None:
    load_pack(root)
    import av
    import comfy.model_management
    import torch
    from comfy_api.latest import InputImpl, Types
    from pack_under_test.mforce_core.model.tokens import patches_to_latents, patchify
    from pack_under_test.nodes.depth_detokenize import MFDepthDetokenize
    from pack_under_test.nodes.host import clip_depth
    from pack_under_test.nodes.host.core_sampler import Settings, sample_latent
    from pack_under_test.nodes.host.model_loader import load_joint_model
    from pack_under_test.nodes.host.nano_parts import FOLDER, load_clip, load_vae
    from pack_under_test.nodes.image_to_depth_latent import MFImageToDepthLatent
    from pack_under_test.nodes.video_depth import MFVideoDepth

    model, vae, text = load_joint_model(str(FOLDER), dequantized=True), load_vae(), load_clip()
    positive = text.encode_from_tokens_scheduled(text.tokenize(""))
    results = {}

    given = {"model": model, "positive": positive, "vae": vae, "width": SIDE, "height": SIDE, "steps": 2}

    def run(clip, **options):
        return node_calls.run(MFVideoDepth, **{**given, "clip": clip, **options})

    def message(clip, **options) -> str:
        return node_calls.message(MFVideoDepth, **{**given, "clip": clip, **options})

    def maps(latent):
        return MFDepthDetokenize.execute(latent).args[4][..., 0]

    # A wall with a floor, and a block that moves before it.
    frames = torch.full((6, SIDE, SIDE, 3), 0.6)
    frames[:, 40:] = torch.tensor([0.5, 0.35, 0.2])
    for number, frame in enumerate(frames):
        frame[30:50, 4 + 6 * number : 20 + 6 * number] = torch.tensor([0.8, 0.1, 0.1])

    depth, pictures, shown, fps = run(frames, one_scale=False, frames_at_once=4)
    latent = MFImageToDepthLatent.execute(frames, vae, SIDE, SIDE, "keep aspect").args[0]
    settings = Settings(steps=2)
    sampled = sample_latent(model, positive, positive, latent, "auto", settings, 0, same_noise="image to depth")[1]
    wanted = maps({"samples": sampled, "depth_valid": latent["depth_valid"]})
    known = (wanted > 0) & (maps(depth) > 0)
    results["same as the sampler"] = float((maps(depth) / wanted - 1)[known].abs().max())
    results["known"] = float(known.float().mean())
    results["shapes"] = [list(depth["samples"].shape), list(pictures.shape), list(shown.shape), fps]
    results["range"] = [float(shown.min()), float(shown.max())]
    results["one at a time"] = float(
        (maps(run(frames, one_scale=False, frames_at_once=1)[0]) / maps(depth) - 1)[known].abs().max()
    )

    still = maps(run(frames[:1].repeat(20, 1, 1, 1))[0])
    results["still"] = bool((still == still[0]).all())
    carried = maps(run(frames, carry=0.75, anchor_every=3, overlap=1)[0])
    results["carried"] = float((carried / wanted - 1)[(carried > 0) & (wanted > 0)].abs().median())

    # What a frame starts from where the depth before it has holes: the noise of the run, to the bit.
    begun = []

    def beginning(_model, _positive, _negative, task, noise, *_others):
        begun.append((task.depth, noise.unbind()[1]))
        return task.rgb, task.depth

    kept, clip_depth.run = clip_depth.run, beginning
    before = torch.full((1, SIDE, SIDE), 2.0)
    before[:, 10:20, 30:40] = torch.nan
    clip_depth.ClipDepth("MF Video Depth", model, positive, vae, 4, 3)(frames[:1].movedim(-1, 1), before, 0.5)
    clip_depth.run = kept
    (stream, noise), holes = begun[0], patches_to_latents(patchify(before.isnan(), 16))
    results["holes"] = [bool((stream == noise)[holes].all()), bool((stream[~holes] == 1).all())]

    # Videos: of a file, a part of it, and of pictures.
    path = folder / "clip.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=12)
        stream.width, stream.height, stream.pix_fmt = SIDE, SIDE, "bgr0"
        for frame in (frames * 255).round().to(torch.uint8).numpy():
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))
    whole = run(InputImpl.VideoFromFile(str(path)), one_scale=False)
    results["video"] = [float((maps(whole[0]) / wanted - 1)[known].abs().median()), whole[3]]
    part = run(InputImpl.VideoFromFile(str(path)).as_trimmed(start_time=0.25, duration=0.25))
    results["trimmed"] = [len(part[1]), float((part[1] - frames[3:6]).abs().max())]
    parts = Types.VideoComponents(images=frames, audio=None, frame_rate=Fraction(30))
    of_parts = run(InputImpl.VideoFromComponents(parts), one_scale=False)
    results["of pictures"] = [bool(torch.equal(of_parts[0]["samples"], run(frames, one_scale=False)[0]["samples"]))]
    results["of pictures"].append(of_parts[3])

    results["one frame"] = message(frames[:1])
    results["two sizes"] = message(frames, width=100, fit="crop")
    results["flow"] = message(frames, flow=True)

    # The model is asked twice and then interrupted: that ends the run, and the next one works.
    calls = []

    def stopping(apply, asked):
        calls.append(asked)
        if len(calls) == 3:
            comfy.model_management.interrupt_current_processing()
        return apply(asked["input"], asked["timestep"], **asked["c"])

    interrupted = model.clone()
    interrupted.set_model_unet_function_wrapper(stopping)
    try:
        run(frames, frames_at_once=2, model=interrupted)
    except comfy.model_management.InterruptProcessingException:
        results["interrupted after"] = len(calls)
    results["after it"] = len(run(frames)[1])
    print(json.dumps(results))


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
