"""MF Depth Ensemble in a running ComfyUI: several depth maps of a picture, against the ensemble of the core."""

import numpy as np
import pytest
import torch

from mforce.mforce_core.depth.ensemble import combine

from .test_execution import Scene, saved_depth

MAPS = 3


def test_the_median_and_the_spread_are_those_of_the_maps(server, object_info):
    scene = Scene(object_info, text="")
    latent = scene.add("MFRepeatLatent", latent=scene.start("i2d"), amount=MAPS)[0]
    sampled = scene.add(
        "MFSampler", model=scene.model, positive=scene.positive, negative=scene.negative, latent=latent, steps=2
    )
    geometry = scene.add("MFDepthDetokenize", depth=sampled[1])[0]
    ensemble = scene.add("MFDepthEnsemble", depth=geometry, limit=0.02)
    picture = scene.save_image(ensemble[1])
    maps = scene.save_depth(geometry)
    median, spread = scene.save_depth(ensemble[0]), scene.save_depth(ensemble[3])
    mask = scene.save_image(scene.add("MaskToImage", mask=ensemble[2])[0])
    outcome = scene.graph.run(server)

    singles = np.stack([np.load(path) for path in outcome.files(maps, "depth_files")])
    assert len(singles) == MAPS
    assert not np.allclose(singles[0], singles[1], rtol=1e-3)
    wanted = combine(torch.from_numpy(singles))
    known = np.isfinite(saved_depth(outcome, median))
    assert known.mean() > 0.99
    assert saved_depth(outcome, median)[known] == pytest.approx(wanted.depth.numpy()[known], rel=1e-5)
    found = saved_depth(outcome, spread)
    positive = np.isfinite(found)  # a spread of 0 is no depth to MF Save Depth
    assert found[positive] == pytest.approx(wanted.spread.numpy()[positive], rel=1e-4, abs=1e-7)
    white = np.asarray(outcome.image(mask).convert("L")) > 127
    assert (white == (wanted.spread.numpy() > 0.02)).mean() > 0.999
    assert 0 < white.mean() < 1
    low, high = outcome.image(picture).convert("L").getextrema()
    assert low < high
