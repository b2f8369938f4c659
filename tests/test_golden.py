"""Agreement with data made by the authors' release (tests/golden/README.md gives the tolerances)."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from mforce.mforce_core import load_model, rollout_times, sample
from mforce.mforce_core.depth.codec import decode_depth, encode_depth, expand
from mforce.mforce_core.model.config import Schedule
from mforce.mforce_core.model.tokens import unpatchify

GOLDEN = Path(__file__).parent / "golden"


def relative_error(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    return float((ours.double() - theirs.double()).norm() / theirs.double().norm())


def grid_of(version: str) -> tuple[int, int]:
    return tuple(json.loads((GOLDEN / version / "config.json").read_text())["grid"])


@pytest.mark.parametrize("version", ["v1", "v2"])
@pytest.mark.parametrize(("dtype", "suffix", "tolerance"), [("float32", "", 1e-5), ("bfloat16", "_bf16", 3e-2)])
def test_forward(version: str, dtype: str, suffix: str, tolerance: float) -> None:
    model = load_model(GOLDEN / version, dtype=getattr(torch, dtype))
    data = load_file(GOLDEN / version / "forward.safetensors")
    inputs = [data[name] for name in ("rgb", "depth", "text", "t_rgb", "t_depth")]
    with torch.no_grad():
        rgb, depth = model(*inputs, grid_of(version), data.get("guidance"))
    assert depth.dtype == torch.float32
    assert relative_error(rgb, data["out_rgb" + suffix]) <= tolerance
    assert relative_error(depth, data["out_depth" + suffix]) <= tolerance


@pytest.mark.parametrize("version", ["v1", "v2"])
@pytest.mark.parametrize("run", ["joint_tilted", "joint_diagonal", "joint_depth_first", "i2d", "d2i"])
def test_rollout(version: str, run: str) -> None:
    settings = json.loads((GOLDEN / version / "sample.json").read_text())["runs"][run]
    data = load_file(GOLDEN / version / "sample.safetensors")
    model = load_model(GOLDEN / version)
    rgb, depth = sample(
        model,
        data["text"],
        grid_of(version),
        mode=settings["mode"],
        steps=settings["num_steps"],
        cfg=settings["cfg_scale"],
        log2_alpha=settings.get("log2_alpha"),
        null_text=data["null_text"],
        rgb=data["clean_rgb"],
        depth=data["clean_depth"],
        noise=(data[f"{run}.init_rgb"], data[f"{run}.init_depth"]),
    )
    assert relative_error(rgb, data[f"{run}.out_rgb"]) <= 1e-5
    assert relative_error(depth, data[f"{run}.out_depth"]) <= 1e-5


SCHEDULES = json.loads((GOLDEN / "functions" / "schedule.json").read_text())


@pytest.mark.parametrize("key", sorted(SCHEDULES))
def test_schedule(key: str) -> None:
    mode, log2_alpha, steps, *shifts = key.split("/")
    values = {}
    for shift in shifts:  # "mu=<rgb>,<depth>"
        name, pair = shift.split("=")
        rgb, depth = map(float, pair.split(","))
        values |= {f"rgb_shift_{name}": rgb, f"depth_shift_{name}": depth}
    alpha = None if log2_alpha == "None" else float(log2_alpha)
    t_rgb, t_depth = rollout_times(int(steps), mode=mode, log2_alpha=alpha, schedule=Schedule(**values))
    assert torch.equal(t_rgb, torch.tensor(SCHEDULES[key]["t_rgb"]))
    assert torch.equal(t_depth, torch.tensor(SCHEDULES[key]["t_depth"]))


def test_depth_codec() -> None:
    data = load_file(GOLDEN / "functions" / "depth_codec.safetensors")
    tokens = encode_depth(data["depth"][..., 0])
    assert relative_error(tokens, data["tokens"]) <= 1e-6
    assert relative_error(decode_depth(tokens), data["decoded"][..., 0]) <= 1e-5


def test_depth_codec_past_the_pole() -> None:
    data = load_file(GOLDEN / "functions" / "depth_codec.safetensors")
    raw, theirs = data["raw_tokens"], data["raw_decoded"][..., 0]
    # The inverse contraction is theirs everywhere; it is the user-facing decode that refuses what lies past the pole.
    torch.testing.assert_close(expand(unpatchify(raw)), theirs, rtol=1e-4, atol=1e-5)
    ours, z = decode_depth(raw), unpatchify(raw)
    inside = (z > 0) & (z < 2)
    assert not inside.all()
    torch.testing.assert_close(ours[inside], theirs[inside], rtol=1e-4, atol=1e-5)
    assert (ours[inside] > 0).all()
    assert ours[~inside].isnan().all()
