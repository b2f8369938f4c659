"""Prompts for parts of the picture: core's conditioning nodes on the joint latent."""

import json
from pathlib import Path

import pytest
import torch

from mforce.evaluation.appearance import hue_and_saturated, nearest_hue
from mforce.scenes.vocabulary import COLOR_HUES, COLORS

from .host import PACK, find_installation
from .test_execution import Scene, pixels

HERE = Path(__file__).parent
SIDE = 128


@pytest.fixture(scope="module")
def results():
    return json.loads(find_installation().run(HERE / "regional_runs.py", PACK, PACK / "tests" / "golden" / "v2"))


def test_weights_are_those_that_core_gives_a_plain_latent(results):
    assert len(results["weights"]) == 7
    assert set(results["weights"].values()) == {0.0}
    assert results["others_stay"]
    assert results["neighbors"] == [1, 1, 1, 1, 1, 0, 0, 0]  # three areas of a cell and a half


@pytest.mark.parametrize(
    "way",
    ["halves", "halves_by_percentage", "halves_by_pixels", "mask_strength", "default", "mask_per_picture"],
)
def test_each_region_has_the_prediction_of_its_own_prompt(results, way):
    assert results["prompts_differ"] > 0.1
    assert results[way] < 1e-5


def test_timestep_ranges_and_hooks_act_on_a_region(results):
    assert results["timestep_range"] < 1e-5
    assert results["timestep_range_of_nothing"] > 1e-3
    assert results["lora_acts"] > 0.1
    assert results["hooked_half"] < 1e-5


def test_longer_prompts_and_areas_outside_the_picture(results):
    assert results["concat"]
    assert "outside the picture, which is 96x64" in results["outside"]


def shares(picture):
    """Share of each named color among the saturated pixels of the left and the right half, (2, colors)."""
    image = torch.from_numpy(picture / 255).permute(2, 0, 1).float()
    hues = torch.tensor(list(COLOR_HUES.values()))
    found = []
    for half in image.chunk(2, dim=2):
        hue, saturated = hue_and_saturated(half)
        counts = nearest_hue(hue[saturated], hues).bincount(minlength=len(hues))
        found.append(counts / counts.sum().clamp(min=1))
    return torch.stack(found)


def halves(scene, way, left, right):
    """A conditioning of two prompts, each for one half of the picture."""
    half = SIDE // 2
    if way == "percentage":
        parts = [
            scene.add("ConditioningSetAreaPercentage", conditioning=text, width=0.5, height=1.0, x=x, y=0.0)
            for text, x in ((left, 0.0), (right, 0.5))
        ]
    elif way == "area":
        parts = [
            scene.add("ConditioningSetArea", conditioning=text, width=half, height=SIDE, x=x, y=0)
            for text, x in ((left, 0), (right, half))
        ]
    else:
        black = scene.add("SolidMask", value=0.0, width=SIDE, height=SIDE)
        white = scene.add("SolidMask", value=1.0, width=half, height=SIDE)
        masks = [
            scene.add("MaskComposite", destination=black[0], source=white[0], x=x, y=0, operation="add")
            for x in (0, half)
        ]
        parts = [
            scene.add("ConditioningSetMask", conditioning=text, mask=mask[0])
            for text, mask in zip((left, right), masks, strict=True)
        ]
    return scene.add("ConditioningCombine", conditioning_1=parts[0][0], conditioning_2=parts[1][0])[0]


@pytest.mark.parametrize(("sampler", "way"), [("KSampler", "area"), ("KSampler", "mask"), ("MFSampler", "percentage")])
def test_two_prompts_color_the_two_halves(server, object_info, sampler, way):
    scene = Scene(object_info, "a large red cube on a concrete floor")
    blue = scene.add("CLIPTextEncode", clip=scene.loaded[1], text="a large blue cube on a concrete floor")[0]
    scene.positive = halves(scene, way, scene.positive, blue)
    saved = []
    for seed in range(4):
        if sampler == "KSampler":
            rgb = scene.add("MFSplitLatent", latent=scene.ksampler(scene.start("joint"), seed=seed)[0])[0]
        else:
            conds = {"model": scene.model, "positive": scene.positive, "negative": scene.negative}
            rgb = scene.add("MFSampler", **conds, latent=scene.start("joint"), seed=seed, steps=8)[0]
        saved.append(scene.save_image(scene.decode(rgb)[0]))
    outcome = scene.graph.run(server)
    red, blue = COLORS.index("red"), COLORS.index("blue")
    for node in saved:
        left, right = shares(pixels(outcome, node))
        assert left[red] > 0.9
        assert right[blue] > 0.9
