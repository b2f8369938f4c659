"""The study of video: what its measures say of depth that is known, and its tables on nano."""

import json
import sys

import pytest
import torch

pytest.importorskip("typer")

from typer.testing import CliRunner

from mforce.cli.app import app
from mforce.evaluation import video_study
from mforce.evaluation.video_study import LASTING, VARIANTS, measures


def test_measures_of_depth_that_is_known():
    truth = 1 + torch.rand(20, 8, 8, generator=torch.Generator().manual_seed(0))
    exact = measures(3 * truth, truth)
    assert all(value == pytest.approx(0, abs=1e-6) for value in exact.values())
    drifting = truth * torch.exp(0.01 * torch.arange(20.0))[:, None, None]
    found = measures(drifting, truth)
    assert (found["flicker"], found["scale_jump"]) == pytest.approx((0.01, 0.01), rel=1e-3)
    assert found["scale_range"] == pytest.approx(0.19, rel=1e-3)
    assert found["scale_drift"] == pytest.approx(0.18, rel=1e-3)
    assert found["absrel_each"] == pytest.approx(0, abs=1e-6)
    assert found["absrel"] == pytest.approx(0.05, rel=0.1)
    holes = drifting.clone()
    holes[3, 2:4] = torch.nan
    assert measures(holes, truth)["flicker"] == pytest.approx(0.01, rel=1e-3)
    flipping = truth * torch.tensor([1.0, 1.1]).repeat(10)[:, None, None]
    assert measures(flipping, truth)["scale_jump"] == pytest.approx(0.0953, rel=1e-3)
    assert measures(flipping, truth)["scale_drift"] == pytest.approx(0, abs=1e-6)


def test_without_opencv_nothing_begins(monkeypatch):
    monkeypatch.setitem(sys.modules, "cv2", None)
    monkeypatch.setattr("mforce.cli.video_study.prepare", None)  # what loads a model would break
    result = CliRunner().invoke(app, ["study", "video", "--only", "cuts,clips"])
    assert result.exit_code == 2
    assert " ".join(result.output.split()).endswith(
        "Optical flow needs OpenCV: pip install opencv-python-headless, or the extra 'comfyui-modality-forcing[flow]'."
    )
    video_study.check_sections(["cuts", "long"])  # these follow no flow


def test_the_tables_of_a_model(tmp_path, monkeypatch):
    pytest.importorskip("cv2")  # one of the variants follows the flow
    monkeypatch.setattr(video_study, "SHORT", 3)
    monkeypatch.setattr(video_study, "LONG", 3)
    monkeypatch.setattr(video_study, "_ROOMS", 3)
    file = tmp_path / "tables.json"
    order = ["study", "video", "--clips", "2", "--steps", "2", "--size", "64", "--device", "cpu", "--json", str(file)]
    result = CliRunner().invoke(app, order)
    assert result.exit_code == 0, result.output
    tables = json.loads(file.read_text())["tables"]
    assert [row["name"] for row in tables["clips"]] == list(VARIANTS)
    assert [row["name"] for row in tables["long"]] == list(LASTING)
    assert [row["taken_for_cuts"] for row in tables["cuts"]] == [0, 0, 0, 1]
    first, second = tables["clips"][:2]
    assert first["times_independent"] == 1
    assert second["flicker"] < first["flicker"]
    assert CliRunner().invoke(app, ["study", "video", "--only", "sounds"]).exit_code == 2
