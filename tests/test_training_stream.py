"""Training straight from shards of pictures, encoded as they come."""

import io
import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import webdataset
from PIL import Image

from mforce.mforce_core import load_model
from mforce.mforce_core.model.config import ConfigError
from mforce.scenes import read_shards, write_dataset
from mforce.training.config import TrainConfig
from mforce.training.config_file import read_train_config
from mforce.training.processes import join
from mforce.training.source import open_source
from mforce.training.train import Trainer, train
from two_processes import train_on_two

# One process saving alone is meant.
pytestmark = pytest.mark.filterwarnings("ignore:torch.distributed is disabled")

NANO = Path(__file__).parent.parent / "models" / "nano"
SIZE = 32


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Tars of ten scenes, and one of a picture whose depth is not turned as it is, which only images alone can use."""
    folder = tmp_path_factory.mktemp("shards")
    write_dataset(folder, 10, seed=3, size=SIZE, shard_size=4, progress=False, format="webdataset")
    scene = next(iter(webdataset.WebDataset(str(folder / "scenes-00000.tar"), shardshuffle=False)))
    lying, file = Image.Exif(), io.BytesIO()
    lying[274] = 6
    Image.open(io.BytesIO(scene["png"])).save(file, "jpeg", exif=lying)
    with webdataset.TarWriter(str(folder / "turned.tar"), encoder=False) as writer:
        depth = {name: content for name, content in scene.items() if name.startswith("depth")}
        writer.write({"__key__": "turned", "jpg": file.getvalue(), **depth})
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
    left_out = [json.loads(line) for line in (whole / "left-out.jsonl").read_text().splitlines()]
    assert [(Path(entry["shard"]).name, entry["key"]) for entry in left_out] == [("turned.tar", "turned")]
    assert "turned by its camera tag" in left_out[0]["reason"]


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


# Killed while a step after the checkpoint of step 3 is prepared.
_KILLED = """
import os, signal, sys
from pathlib import Path
from mforce.training import train
from mforce.training.config_file import read_train_config

class Trainer(train.Trainer):
    def train_step(self):
        if self.step == 4:
            self.checkpoints.finish()
            os.kill(os.getpid(), signal.SIGKILL)
        super().train_step()

train.Trainer = Trainer
train.train(read_train_config(Path("_small-mf"), sys.argv[1:]))
"""


def test_two_processes_train_on_a_mixture_in_buckets_as_one_and_as_one_that_was_killed(
    shards: str, base: Path, tmp_path: Path
) -> None:
    """Of tars of squares and a folder of pictures of two more shapes."""
    (tmp_path / "more").mkdir()
    write_dataset(tmp_path / "scenes", 6, seed=9, size=2 * SIZE, shard_size=6, progress=False)
    (scenes,) = read_shards(tmp_path / "scenes")
    for number, (rgb, depth) in enumerate(zip(scenes.rgb, scenes.depth, strict=True)):
        rows, columns = [(SIZE, 2 * SIZE), (2 * SIZE, SIZE + 8), (SIZE, 2 * SIZE)][number % 3]
        pixels = rgb[:, :rows, :columns].permute(1, 2, 0).contiguous().numpy()
        Image.fromarray(pixels).save(tmp_path / "more" / f"{number}.png")
        np.save(tmp_path / "more" / f"{number}.depth.npy", depth[:rows, :columns].float().numpy())
    parts = f"[{{shards = ['{shards}'], weight = 3}}, {{shards = ['{tmp_path / 'more'}'], weight = 2}}]"
    more = {"base": base, "data.shards": [], "data.mixture": parts, "data.buckets": "true", "batch_size": 2}
    train(config("mf", shards, tmp_path / "one", **more))
    train_on_two("_small-mf", arguments(shards, tmp_path / "two", **more), tmp_path)
    for ours, theirs in zip(curve(tmp_path / "two"), curve(tmp_path / "one"), strict=True):
        assert ours == pytest.approx(theirs, rel=1e-3)

    settings = arguments(shards, tmp_path / "killed", **more)
    killed = subprocess.run([sys.executable, "-c", _KILLED, *settings], capture_output=True, text=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr[-4000:]
    assert [path.name for path in (tmp_path / "killed" / "checkpoints").iterdir()] == ["step-3"]
    source = open_source(config("mf", shards, tmp_path, **more), depth=True, device=torch.device("cpu"))
    shapes = {tuple(source.batch(step, slice(0, 1)).rgb.shape[2:]) for step in range(6)}
    assert len(shapes) > 1
    train(config("mf", shards, tmp_path / "killed", **more))
    assert curve(tmp_path / "killed")[-3:] == curve(tmp_path / "one")[-3:]


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
