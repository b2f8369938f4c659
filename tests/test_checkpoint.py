"""Opening every form of checkpoint, refusing every broken one, and the memory that a load takes."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from mforce.mforce_core import load_model
from mforce.mforce_core.model.config import ConfigError
from mforce.mforce_core.weights.checkpoint import save_model
from mforce.mforce_core.weights.header import read_header
from mforce.mforce_core.weights.tensor_files import CheckpointError

GOLDEN = Path(__file__).parent / "golden" / "v2"


@pytest.fixture
def weights() -> dict[str, torch.Tensor]:
    return load_file(GOLDEN / "model.safetensors")


@pytest.mark.parametrize("prefix", ["dit.", "model.diffusion_model.", "diffusion_model.", ""])
def test_every_prefix_gives_the_same_model(prefix: str, weights: dict, tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    others = {"vae.encoder.conv_in.weight": torch.zeros(1)} if prefix else {}
    save_file({prefix + name.removeprefix("dit."): t for name, t in weights.items()} | others, file)
    model, reference = load_model(file), load_model(GOLDEN)
    assert model.config == reference.config
    for name, tensor in reference.state_dict().items():
        assert torch.equal(model.state_dict()[name], tensor)
    assert read_header(file).others == tuple(others)


def test_base_without_depth_opens(weights: dict, tmp_path: Path) -> None:
    file = tmp_path / "klein.safetensors"
    depth_only = ("depth", "cross_alpha", "time_in_rgb_to_depth")
    base = {n.removeprefix("dit."): t for n, t in weights.items() if not any(key in n for key in depth_only)}
    save_file(base, file)
    model = load_model(file)
    assert not model.config.has_depth
    velocity, depth = model(torch.zeros(1, 4, 32), None, torch.zeros(1, 3, 48), torch.ones(1), None, (2, 2))
    assert depth is None
    assert velocity.shape == (1, 4, 32)


def test_sharded_release_folder(weights: dict, tmp_path: Path) -> None:
    shutil.copy(GOLDEN / "config.json", tmp_path)
    names = sorted(weights)
    save_file({n: weights[n] for n in names[:20]}, tmp_path / "diffusion_model-00001-of-00002.safetensors")
    save_file({n: weights[n] for n in names[20:]}, tmp_path / "diffusion_model-00002-of-00002.safetensors")
    save_file({"bn.running_mean": torch.zeros(1)}, tmp_path / "ae_encoder.safetensors")
    assert load_model(tmp_path).config == load_model(GOLDEN).config


def test_one_shard_stands_for_its_folder(weights: dict, tmp_path: Path) -> None:
    shutil.copy(GOLDEN / "config.json", tmp_path)
    shards = [tmp_path / f"model-0000{number}-of-00002.safetensors" for number in (1, 2)]
    names = sorted(weights)
    save_file({n: weights[n] for n in names[:20]}, shards[0])
    save_file({n: weights[n] for n in names[20:]}, shards[1])
    assert load_model(shards[1]).config == load_model(GOLDEN).config


@pytest.mark.parametrize(("beside", "metadata", "expected"), [(2.5, None, 2.5), (2.5, 1.5, 1.5), (None, 1.5, 1.5)])
def test_a_files_own_configuration_goes_before_the_one_beside_it(
    beside: float | None, metadata: float | None, expected: float, weights: dict, tmp_path: Path
) -> None:
    values = json.loads((GOLDEN / "config.json").read_text())

    def config(mu: float) -> str:
        return json.dumps({"architecture": values["architecture"], "schedule": {"rgb_shift_mu": mu}})

    if beside is not None:
        (tmp_path / "config.json").write_text(config(beside))
    file = tmp_path / "model.safetensors"
    save_file(weights, file, None if metadata is None else {"config": config(metadata)})
    assert load_model(file).schedule.rgb_shift_mu == expected


def test_another_models_configuration_is_ignored(weights: dict, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "qwen3", "hidden_size": 12}')
    save_file(weights, tmp_path / "model.safetensors")
    assert load_model(tmp_path / "model.safetensors").config == load_model(GOLDEN).config


def test_saved_model_opens_again(tmp_path: Path) -> None:
    model = load_model(GOLDEN)
    save_model(model, tmp_path, dtype=torch.float32)
    again = load_model(tmp_path)
    assert again.config == model.config
    assert again.schedule == model.schedule
    for name, tensor in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor)


def test_a_model_that_cannot_be_written_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(tensors: dict, path: Path, **_: object) -> None:
        path.write_bytes(b"half")
        raise OSError("No space left on device")

    monkeypatch.setattr("safetensors.torch.save_file", full)
    with pytest.raises(OSError, match="No space"):
        save_model(load_model(GOLDEN), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_bfloat16_keeps_a_float32_depth_head() -> None:
    model = load_model(GOLDEN, dtype=torch.bfloat16)
    assert model.img_in.weight.dtype == torch.bfloat16
    assert model.depth_final_layer.linear.weight.dtype == torch.float32


def broken(kind: str, weights: dict, folder: Path) -> Path:
    file = folder / "model.safetensors"
    if kind == "truncated":
        file.write_bytes((GOLDEN / "model.safetensors").read_bytes()[:1_000_000])
    elif kind == "pickle":
        file.write_bytes(b"PK\x03\x04 archive/data.pkl")
    elif kind == "foreign":
        save_file({"model.diffusion_model.input_blocks.0.0.weight": torch.zeros(2, 2)}, file)
    elif kind == "missing":
        del weights["dit.final_layer.linear.weight"]
        save_file(weights, file)
    elif kind == "extra":
        save_file(weights | {"dit.final_layer.bias": torch.zeros(3)}, file)
    elif kind == "shape":
        weights["dit.single_blocks.1.linear2.weight"] = torch.zeros(64, 255)
        save_file(weights, file)
    elif kind == "variant":
        (folder / "config.json").write_text('{"variant": "flux_rgbd_9b_v3"}')
        save_file(weights, file)
    elif kind == "config":
        (folder / "config.json").write_text('{"variant":')
        save_file(weights, file)
    elif kind == "empty":
        pass
    return folder


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("truncated", "not a complete .safetensors file"),
        ("pickle", "but a ZIP archive, as PyTorch pickles"),
        ("foreign", "no Modality Forcing or FLUX.2 transformer"),
        ("missing", "1 missing tensor.*final_layer.linear.weight"),
        ("extra", "1 unexpected tensor.*final_layer.bias"),
        ("shape", r"single_blocks.1.linear2.weight has shape \(64, 255\)"),
        ("variant", "unknown variant 'flux_rgbd_9b_v3'; known: flux_rgbd_9b_v1"),
        ("config", "cannot be read as JSON"),
        ("empty", "no .safetensors file"),
        ("absent", "does not exist"),
    ],
)
def test_broken_checkpoints_get_one_sentence(kind: str, message: str, weights: dict, tmp_path: Path) -> None:
    path = tmp_path / "nowhere" if kind == "absent" else broken(kind, weights, tmp_path)
    with pytest.raises((CheckpointError, ConfigError), match=message) as caught:
        load_model(path)
    assert "\n" not in str(caught.value)


def test_float16_is_refused() -> None:
    with pytest.raises(CheckpointError, match="float16 overflows"):
        load_model(GOLDEN, dtype=torch.float16)


_MEASURE = """
import re, sys
from mforce.mforce_core import load_model

def peak():  # ru_maxrss would count the parent process too
    return 1024 * int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1])

load_model(sys.argv[2])  # what PyTorch imports and sets up at a first load is not the file's
before = peak()
model = load_model(sys.argv[1])
total = sum(float(p.sum()) for p in model.parameters())
print(peak() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_peak_memory_of_a_load(tmp_path: Path) -> None:
    """Load and touch every weight of a 200 MB file; the peak stays within 1.15 times the file."""
    from mforce.mforce_core.model.config import Architecture
    from mforce.mforce_core.model.transformer import ModalityForcingTransformer

    sizes = json.loads((GOLDEN / "config.json").read_text())["architecture"]
    sizes |= {"hidden_size": 768, "num_heads": 8, "axes_dim": [24, 24, 24, 24], "depth_single": 8}
    save_model(ModalityForcingTransformer(Architecture.from_dict(sizes)), tmp_path)
    size = (tmp_path / "model.safetensors").stat().st_size
    assert size > 150e6
    command = [sys.executable, "-c", _MEASURE, str(tmp_path), str(GOLDEN)]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    taken = int(run.stdout)
    assert 0.9 * size < taken <= 1.15 * size  # below, nothing would have been measured
