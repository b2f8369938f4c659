"""The study of enlarged pairs: seams where they were put, errors that were made, and a run of it on nano."""

import pytest
import torch

from mforce.evaluation.joint_enlargement_study import INTERPOLATED, SCENES, Pairs, study_joint_enlargement
from mforce.mforce_core.pipeline import Pipeline
from mforce.mforce_core.resolving import resolve
from mforce.mforce_core.settings import Settings
from mforce.mforce_core.weights.parts import find_parts


def pairs(maps, seen=None):
    pictures = maps[:, None].expand(-1, 3, -1, -1)
    return Pairs(pictures, maps, maps if seen is None else seen, torch.zeros(len(maps), 4, 2), side=32)


def test_a_seam_is_found_where_tiles_meet_and_nowhere_else():
    ramp = torch.linspace(1, 2, 64).expand(2, 64, 64).clone()
    even = pairs(ramp).seams(ramp[:, None])
    assert (even[:, 0] / even[:, 1]).tolist() == pytest.approx([1, 1], rel=1e-3)
    for column in (24, 16):  # the second tile of 32 begins at 16 and is moved to 24
        stepped = ramp.clone()
        stepped[..., column:] += 0.2
        across, others = pairs(stepped).seams(stepped[:, None]).unbind(1)
        assert bool((across > 3 * others).all()) == (column == 24), column


def test_errors_are_those_of_scaled_depth():
    seen = torch.full((1, 32, 32), 2.0)
    seen[:, :, 16:] = 4.0
    made = 3 * seen
    made[:, 15] *= 1.5
    overall, edges = pairs(made, seen).errors
    assert overall.item() == pytest.approx(0.5 / 32, rel=1e-3)
    assert edges.item() == pytest.approx(0.5 / 32, rel=1e-3)  # the band crosses every row


def test_the_study_on_nano():
    settings = Settings("joint", "", size=(32, 32), steps=2, device="cpu")
    parts = find_parts(settings.model)
    pipeline = Pipeline(resolve(settings, parts), parts, ())
    rows = {row["name"]: row for row in study_joint_enlargement(pipeline, 2, 2, 5, say=lambda _: None)}
    scenes, interpolated, tiles = rows.values()
    assert list(rows) == [SCENES, INTERPOLATED, "tiles from 0.4"]
    assert (scenes["sharpness"], scenes["depth_sharpness"]) == (1, 1)
    assert scenes["frechet"] == pytest.approx(0, abs=1e-6)
    assert tiles["frechet"] > 0
    assert interpolated["sharpness"] < tiles["sharpness"]
