"""MF Depth Upscale in a running ComfyUI: what the library makes of the same tiles, errors, and stopping it."""

import math
import threading

import numpy as np
import torch
from PIL import Image

from mforce import Pipeline
from mforce.mforce_core.full_size.refine import Tiling, refine_depth
from mforce.mforce_core.full_size.tile_model import TileModel
from mforce.mforce_core.model.tokens import latents_to_tokens

from .test_execution import EXAMPLES, Scene, pixels, saved_depth

LARGE = "three_solids_512x384"
WIDTH, HEIGHT, LEFT, TOP, SMALL = 144, 112, 240, 130, 80


def refining(object_info, fit="keep aspect", **options):
    """A picture of 144x112 pixels, its depth at about 80x80, and the node on both."""
    scene = Scene(object_info, text="")
    large = scene.add("MFExampleScene", scene=LARGE)[0]
    picture = scene.add("ImageCrop", image=large, width=WIDTH, height=HEIGHT, x=LEFT, y=TOP)[0]
    latent = scene.add("MFImageToDepthLatent", image=picture, vae=scene.vae, width=SMALL, height=SMALL, fit=fit)
    sampled = scene.add(
        "MFSampler", model=scene.model, positive=scene.positive, negative=scene.negative, latent=latent[0], steps=2
    )
    coarse = scene.add("MFDepthDetokenize", depth=sampled[1], image=latent[1])[0]
    upscaled = scene.add(
        "MFDepthUpscale",
        **{"model": scene.model, "positive": scene.positive, "vae": scene.vae, "image": picture, "depth": coarse},
        **{"tile": 80, "overlap": 0.25, "strength": 0.3, "seed": 5, **options},
    )
    return scene, coarse, upscaled


def core_noise(rgb_shape, depth_shape, seeds):
    """Tokens of the noise that core draws for a square tile: each stream as (1, C, h, w), one after the other."""
    side, streams = math.isqrt(rgb_shape[1]), []
    for seed in seeds:
        generator = torch.Generator().manual_seed(seed)
        shapes = [(1, shape[2], side, side) for shape in (rgb_shape, depth_shape)]
        streams.append([latents_to_tokens(torch.randn(shape, generator=generator)) for shape in shapes])
    return tuple(torch.cat(parts) for parts in zip(*streams, strict=True))


def test_depth_at_full_size_is_what_the_library_makes(server, object_info, monkeypatch):
    scene, coarse, upscaled = refining(object_info)
    before = scene.save_depth(coarse)
    after, colors = scene.save_depth(upscaled[0]), scene.save_image(upscaled[1])
    outcome = scene.graph.run(server)
    made = saved_depth(outcome, after)
    assert made.shape == (HEIGHT, WIDTH)
    assert pixels(outcome, colors).shape == (HEIGHT, WIDTH, 3)

    monkeypatch.setattr("mforce.mforce_core.full_size.tile_model.draw_noise", core_noise)
    nano = Pipeline.load("nano", device="cpu")
    model = TileModel(nano.networks(""), strength=0.3, steps=4, solver="euler", seed=5)
    small = torch.from_numpy(saved_depth(outcome, before).astype(np.float32))
    assert small.shape[0] < HEIGHT
    whole = np.asarray(Image.open(EXAMPLES / f"{LARGE}.png").convert("RGB"))
    picture = whole[TOP : TOP + HEIGHT, LEFT : LEFT + WIDTH]
    expected = refine_depth(picture, small, model, Tiling((80, 80), 0.25))
    # A weighted median may take another of two neighbors that weigh the same to rounding.
    assert (np.abs(made / expected - 1) < 1e-3).mean() > 0.999


def test_depth_of_another_shape_is_refused(server, object_info):
    scene, _, upscaled = refining(object_info, fit="stretch")
    scene.save_depth(upscaled[0])
    entry = server.wait(server.queue(scene.graph.prompt))
    (problem,) = [body for kind, body in entry["status"]["messages"] if kind == "execution_error"]
    assert problem["exception_message"].startswith("MF Depth Upscale: the depth is 80x80 and the picture 144x112")


def test_a_run_that_is_stopped_between_tiles_leaves_the_server_usable(server, object_info):
    scene, coarse, upscaled = refining(object_info, overlap=0.9, tile=16)  # some thousand tiles
    scene.save_depth(coarse)
    scene.graph.run(server)  # from now on all but the tiles is known
    scene.save_depth(upscaled[0])
    begun, ended = server.queue(scene.graph.prompt), threading.Event()

    def stop():
        while not ended.wait(2.0):
            server.request("/interrupt", {})

    threading.Thread(target=stop, daemon=True).start()
    try:
        entry = server.wait(begun)
    finally:
        ended.set()
    (stopped,) = [body for kind, body in entry["status"]["messages"] if kind == "execution_interrupted"]
    assert stopped["node_type"] == "MFDepthUpscale"
    scene, coarse, _ = refining(object_info)
    scene.save_depth(coarse)
    scene.graph.run(server)
