"""Batches of joint latents: parts and repeats, and what core's own batch nodes say to them."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from .host import PACK, find_installation
from .test_execution import Scene

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def results():
    return json.loads(find_installation().run(HERE / "batch_runs.py", PACK))


def test_plain_latents_are_cut_and_repeated_as_core_does_it(results):
    assert results["like_core"] == {"bare": True, "masks": True, "one mask": True, "places": True}


def test_what_a_joint_latent_notes_goes_with_its_pictures(results):
    assert results["joint_part"]
    assert results["part_of_a_part"]
    assert results["repeats"]
    assert results["repeated_record"] == {"depth_valid": 8, "depth_scale": 8}
    assert results["untouched"]
    assert results["arithmetic"]


def test_a_run_finds_what_the_latent_it_samples_says(results):
    assert results["records"] == [True, True, True, True]


def test_frames_share_a_noise_and_repeats_of_a_picture_do_not(results):
    assert results["repeats_of_repeats"]
    assert results["a_repeat"]
    assert results["seeds"] == {
        "clip, i2d": [5, 5, 5],
        "members of a clip, i2d": [5, 5, 6, 6],
        "member, i2d": [6],
        "batch, joint": [5, 6, 7, 8],
        "batch, d2i": [5, 6, 7, 8],
        "members, joint": [5, 6, 7],
        "part, always, joint": [5, 5, 5],
        "members, always, d2i": [5, 6, 7],
        "part, never, i2d": [6, 7, 8],
        "cut by another node, i2d": [5, 5, 5],
    }


def test_latents_that_do_not_fit_say_so(results):
    assert "no picture 4 in a batch of 4" in results["no_such_picture"]
    assert "holds 2 depth maps, but what it notes about depth is of 4" in results["cut_by_core"]
    assert "resized from 48x32 to 128x128" in results["resized_by_core"]


def sampled(scene, sampler, latent):
    """The joint latent that a sampler makes."""
    if sampler == "KSampler":
        return scene.ksampler(latent, steps=4)[0]
    conds = {"model": scene.model, "positive": scene.positive, "negative": scene.negative}
    return scene.add("MFSampler", **conds, latent=latent, seed=4, steps=4)[2]


def results_of(scene, joint):
    """Nodes that save the pictures and the depth maps of a joint latent."""
    split = scene.add("MFSplitLatent", latent=joint)
    depth = scene.add("MFDepthDetokenize", depth=split[1])
    return scene.save_image(scene.decode(split[0])[0]), scene.save_depth(depth[0])


def read(outcome, nodes):
    pictures = [np.asarray(Image.open(path), dtype=np.float64) for path in outcome.files(nodes[0])]
    return pictures, [np.load(path) for path in outcome.files(nodes[1], "depth_files")]


def same(found, wanted):
    """Equal to the last bit."""
    for ones, others in zip(found, wanted, strict=True):
        assert len(ones) == len(others)
        assert all(np.array_equal(a, b, equal_nan=True) for a, b in zip(ones, others, strict=True))


def test_frames_of_a_batch_have_one_noise_and_so_one_depth_where_they_are_the_same(server, object_info):
    scene = Scene(object_info, "")
    frames = scene.add("RepeatImageBatch", image=scene.example[0], amount=2)[0]
    clip = scene.add("MFImageToDepthLatent", image=frames, vae=scene.vae, width=128, height=128, fit="stretch")[0]
    conds = {"model": scene.model, "positive": scene.positive, "negative": scene.negative, "latent": clip}
    made = {}
    for when in ("image to depth", "never", "left out"):
        sampler = scene.add("MFSampler", **conds, seed=4, steps=2, same_noise=when)
        if when == "left out":  # as in a prompt of 0.2
            del scene.graph.prompt[sampler.name]["inputs"]["same_noise"]
        made[when] = scene.save_depth(scene.add("MFDepthDetokenize", depth=sampler[1])[0])
    outcome = scene.graph.run(server)
    maps = {when: [np.load(path) for path in outcome.files(node, "depth_files")] for when, node in made.items()}
    assert np.array_equal(*maps["image to depth"])
    assert np.array_equal(maps["never"][0], maps["image to depth"][0])
    assert not np.allclose(*maps["never"], rtol=1e-3)
    same([maps["left out"]], [maps["never"]])


@pytest.mark.parametrize("sampler", ["KSampler", "MFSampler"])
def test_pictures_taken_from_a_batch_are_those_of_the_whole(server, object_info, sampler):
    scene = Scene(object_info)
    del scene.graph.prompt[scene.example.name]
    joint = sampled(scene, sampler, scene.add("MFEmptyLatent", batch_size=3)[0])
    whole = results_of(scene, joint)
    part = results_of(scene, scene.add("MFLatentFromBatch", latent=joint, start=1, length=2)[0])
    outcome = scene.graph.run(server)
    pictures, maps = read(outcome, whole)
    same(read(outcome, part), (pictures[1:], maps[1:]))
    assert np.abs(pictures[1] - pictures[2]).max() > 50


@pytest.mark.parametrize("name", ["euler", "euler_ancestral", "dpmpp_2m_sde"])
def test_a_picture_alone_is_the_first_of_its_batch(server, object_info, name):
    scene = Scene(object_info)
    del scene.graph.prompt[scene.example.name]
    conds = {"model": scene.model, "positive": scene.positive, "negative": scene.negative}
    made = []
    for seed, count in ((4, 1), (4, 3), (6, 1)):
        latent = scene.add("MFEmptyLatent", batch_size=count)[0]
        sampler = scene.add(
            "MFSampler", **conds, latent=latent, seed=seed, steps=4, sampler_name=name, refine_depth=True
        )
        made.append(results_of(scene, sampler[2]))
    outcome = scene.graph.run(server)
    first, batch, third = (read(outcome, nodes) for nodes in made)
    same(first, [found[:1] for found in batch])
    same(third, [found[2:] for found in batch])
    assert np.abs(batch[0][0] - batch[0][1]).max() > 50


def test_a_repeated_picture_gets_depth_from_several_seeds(server, object_info):
    scene = Scene(object_info, "")
    size = {"width": 128, "height": 112, "fit": "letterbox"}
    one = scene.add("MFImageToDepthLatent", image=scene.example[0], vae=scene.vae, **size)[0]
    two = scene.add("MFRepeatLatent", latent=one, amount=2)[0]
    single, twice = (results_of(scene, sampled(scene, "MFSampler", latent)) for latent in (one, two))
    outcome = scene.graph.run(server)
    pictures, maps = read(outcome, twice)
    same((pictures[:1], maps[:1]), read(outcome, single))
    assert np.array_equal(pictures[1], pictures[0])
    assert np.array_equal(np.isfinite(maps[1]), np.isfinite(maps[0]))
    assert not np.allclose(maps[1], maps[0], rtol=1e-3, equal_nan=True)


CORE = {
    "LatentFromBatch": {"samples": 0},
    "RepeatLatentBatch": {"samples": 0},
    "LatentUpscale": {"samples": 0},
    "LatentComposite": {"samples_to": 0, "samples_from": 0},
    "LatentBatch": {"samples1": 0, "samples2": 0},
    "RebatchLatents": {"latents": 0},
}


@pytest.mark.parametrize("kind", CORE)
@pytest.mark.parametrize("made_by", ["MFEmptyLatent", "KSampler", "SamplerCustomAdvanced"])
def test_core_nodes_that_take_one_tensor_name_the_nodes_that_take_two(server, object_info, kind, made_by):
    scene = Scene(object_info)
    del scene.graph.prompt[scene.example.name]
    latent = scene.start("joint")
    if made_by == "KSampler":
        latent = scene.ksampler(latent, steps=1)[0]
    elif made_by == "SamplerCustomAdvanced":
        latent = scene.add(
            "SamplerCustomAdvanced",
            noise=scene.add("RandomNoise", noise_seed=0)[0],
            guider=scene.add("BasicGuider", model=scene.model, conditioning=scene.positive)[0],
            sampler=scene.add("KSamplerSelect", sampler_name="euler")[0],
            sigmas=scene.add("BasicScheduler", model=scene.model, scheduler="simple", steps=1, denoise=1.0)[0],
            latent_image=latent,
        )[0]
    changed = scene.add(kind, **dict.fromkeys(CORE[kind], latent))
    scene.save_image(scene.decode(scene.add("MFSplitLatent", latent=changed[0])[0])[0])
    entry = server.wait(server.queue(scene.graph.prompt))
    (problem,) = [body for name, body in entry["status"]["messages"] if name == "execution_error"]
    assert problem["node_type"] == kind
    assert "MF Latent From Batch" in problem["exception_message"]
