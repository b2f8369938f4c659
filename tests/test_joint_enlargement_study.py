"""The study of enlarged pairs: seams where they were put, errors that were made, and ways whose result is known."""

from types import SimpleNamespace

import pytest
import torch
from torch.nn.functional import avg_pool2d

from mforce.evaluation import joint_enlargement_study as study
from mforce.evaluation.joint_enlargement_study import Pairs
from mforce.evaluation.judge import lone_objects
from mforce.mforce_core.settings import Settings
from mforce.scenes import render


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


class Oracle:
    """A pipeline whose pairs are scenes rendered at half the size, which it knows at the whole size, too."""

    def __init__(self, images, depth):
        self.images, self.depth = images, depth
        self.settings, self.device, self.autoencoder = SimpleNamespace(canvas=(32, 32)), "cpu", self
        self.said = []
        self.say = self.said.append

    def job(self, mode, prompt, *, seed):
        return Settings(mode, prompt, seed=seed)

    def networks(self, prompt, guidance):
        return None

    def generate(self, jobs, givens):
        pictures = (avg_pool2d(self.images, 2).movedim(1, -1) * 255).round().byte().numpy()
        return [
            SimpleNamespace(image=pictures[job.seed - 5], depth=self.depth[job.seed - 5, ::2, ::2].numpy())
            for job in jobs
        ]

    def i2d(self, picture, *, seed, **_):
        self.say("nano does not know such pictures")
        return SimpleNamespace(depth=2 * self.depth[seed - 5].numpy())

    def encode(self, images):
        return avg_pool2d(images, 16)

    def larger_pair(self, networks, job, picture, depth, together, progress):
        assert (job.enlarge, picture.shape, depth.shape) == (2, (32, 32, 3), (32, 32))
        number = job.seed - 5
        return (self.images[number].movedim(0, -1) * 255).round().byte().numpy(), self.depth[number].numpy()


def test_a_way_that_makes_the_scenes_measures_as_they_do_and_interpolation_does_not(monkeypatch):
    count = 9
    oracle = Oracle(*render(lone_objects(count, 5), 64))
    monkeypatch.setattr(study, "larger_pair", oracle.larger_pair)
    said = []
    found = list(study.study_joint_enlargement(oracle, 2, count, 5, say=said.append))
    scenes, interpolated, tiles = found
    assert [row["name"] for row in found] == [study.SCENES, study.INTERPOLATED, "tiles from 0.4"]
    assert tiles | {"name": study.SCENES} == scenes
    assert (scenes["sharpness"], scenes["depth_sharpness"], scenes["absrel"]) == pytest.approx((1, 1, 0), abs=1e-6)
    assert interpolated["sharpness"] < 0.8
    assert interpolated["depth_sharpness"] < 1.01
    assert interpolated["band"] > 0.01
    assert interpolated["frechet"] > 10 * abs(scenes["frechet"])
    assert said[1] == "9 of 9 pairs are sampled."
    assert not oracle.said  # of pictures that the model made
