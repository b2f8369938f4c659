"""Training straight from shards of pictures, encoded as they come."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from mforce.mforce_core import load_model
from mforce.mforce_core.model.config import ConfigError
from mforce.scenes import write_dataset
from mforce.training.config import TrainConfig
from mforce.training.config_file import read_train_config
from mforce.training.processes import join
from mforce.training.train import Trainer, train

# One process saving alone is meant.
pytestmark = pytest.mark.filterwarnings("ignore:torch.distributed is disabled")

NANO = Path(__file__).parent.parent / "models" / "nano"
SIZE = 32


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("shards")
    write_dataset(folder, 10, seed=3, size=SIZE, shard_size=4, progress=False, format="webdataset")
    return str(folder)


def arguments(shards: str, out: Path, **more: object) -> list[str]:
    values = {"out": out, "text_encoder": NANO, "data.source": "stream", "data.shards": [shards]}
    values |= {"data.autoencoder": NANO / "autoencoder.safetensors", "data.size": [SIZE, SIZE], "batch_size": 4}
    values |= {"architecture.hidden_size": 32, "architecture.num_heads": 1, "architecture.axes_dim": [8, 8, 8, 8]}
    values |= {"architecture.depth_single": 1, "precision": "float32", "compile": "false", "log_every": 1, "steps": 6}
    values |= {"optimizer.name": "adamw", "save_every": 3}
    return [f"{key}={value}" for key, value in (values | more).items()]


def config(stage: str, shards: str, out: Path, **more: object) -> TrainConfig:
    return read_train_config(Path(f"_small-{stage}"), arguments(shards, out, **more))


def curve(out: Path) -> list[tuple[float, ...]]:
    entries = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    return [(entry["step"], entry["rgb"], entry.get("depth", 0)) for entry in entries]


@pytest.fixture(scope="module")
def base(shards: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("t2i")
    assert train(config("t2i", shards, out)).step == 6
    return out / "model"


def test_both_stages_train_from_a_stream_and_go_on_where_they_were(shards: str, base: Path, tmp_path: Path) -> None:
    assert not load_model(base).config.has_depth
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    train(config("mf", shards, whole, base=base))
    assert load_model(whole / "model").config.has_depth
    assert len(curve(whole)) == 6
    shutil.copytree(whole, parts)
    shutil.rmtree(parts / "checkpoints" / "step-6")
    train(config("mf", shards, parts, base=base))
    assert curve(parts) == curve(whole)


@pytest.mark.parametrize(
    ("mixture", "sentence"),
    [
        ("{latents = 'rooms', weight = 1}", "source = stream needs shards, and no latents"),
        ("{shards = ['a.tar'], weight = 1}, {shards = ['a.tar'], weight = 2}", "twice"),
    ],
)
def test_a_mixture_of_streams_that_cannot_be_is_refused_by_its_key(tmp_path: Path, mixture: str, sentence: str) -> None:
    words = ["data.source=stream", f"data.autoencoder={NANO}", f"out={tmp_path}", f"data.mixture=[{mixture}]"]
    with pytest.raises(ConfigError, match=sentence):
        read_train_config(Path("_small-mf"), words)
    with pytest.raises(ConfigError, match="exclude each other"):
        read_train_config(Path("_small-mf"), [*words, "data.shards=['b.tar']"])


def test_two_processes_train_on_a_mixture_of_streams_as_one(shards: str, base: Path, tmp_path: Path) -> None:
    write_dataset(tmp_path / "more", 6, seed=9, size=SIZE, shard_size=3, progress=False, format="webdataset")
    parts = f"[{{shards = ['{shards}'], weight = 3}}, {{shards = ['{tmp_path / 'more'}'], weight = 1}}]"
    more = {"base": base, "data.shards": [], "data.mixture": parts}
    train(config("mf", shards, tmp_path / "one", **more))
    words = [part for value in arguments(shards, tmp_path / "two", **more) for part in ("--set", value)]
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [sys.executable, *launcher, "-m", "mforce.training.train", "_small-mf", *words]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr[-4000:]
    for ours, theirs in zip(curve(tmp_path / "two"), curve(tmp_path / "one"), strict=True):
        assert ours == pytest.approx(theirs, rel=1e-3)
    shutil.copytree(tmp_path / "one", tmp_path / "resumed")
    shutil.rmtree(tmp_path / "resumed" / "checkpoints" / "step-6")
    train(config("mf", shards, tmp_path / "resumed", **more))
    assert curve(tmp_path / "resumed") == curve(tmp_path / "one")


def test_the_first_stage_reads_images_alone(shards: str, base: Path, tmp_path: Path) -> None:
    trainers = {
        stage: Trainer(config(stage, shards, tmp_path / stage, base=base), join("cpu")) for stage in ("t2i", "mf")
    }
    depths = {stage: trainer.source.batch(0, slice(0, 2)).depth for stage, trainer in trainers.items()}
    for trainer in trainers.values():
        trainer.close()
    assert depths["t2i"] is None
    assert depths["mf"] is not None
    assert torch.isfinite(depths["mf"]).all()
