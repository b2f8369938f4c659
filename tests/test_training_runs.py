"""Whole runs: several processes against one, kills, stops, full disks, broken batches."""

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

import tiny_training
from mforce.mforce_core import load_model
from mforce.mforce_core.model.config import ConfigError
from mforce.training.checkpoint import SaveError
from mforce.training.checks import check_processes
from mforce.training.config import TrainConfig
from mforce.training.processes import join
from mforce.training.train import DivergedError, Trainer, train
from two_processes import train_on_two

# One process saving alone is meant.
pytestmark = pytest.mark.filterwarnings("ignore:torch.distributed is disabled")

STEPS = 50

#: A look at the averaged weights in the middle, which must leave no trace in the run.
LOOK = {"heldout.every": 25, "heldout.samples": 2, "heldout.sampling_steps": 2}

#: What these runs have beyond the settings of all tiny ones.
RUN = {
    "steps": STEPS,
    "log_every": 1,
    "architecture.depth_lapped": "true",
    "optimizer.learning_rate": 3e-3,
    "optimizer.warmup_steps": 5,
    "optimizer.cooldown_steps": 10,
}


def arguments(stage: str, data: Path, out: Path, **more: object) -> list[str]:
    return tiny_training.arguments(stage, data, out, **RUN | more)


def config(stage: str, data: Path, out: Path, **more: object) -> TrainConfig:
    return tiny_training.config(stage, data, out, **RUN | more)


@pytest.fixture(scope="module")
def base(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("t2i")
    train(config("t2i", data, out, steps=3))
    return out / "model"


def measured_step(trainer: Trainer) -> dict[str, float]:
    trainer.train_step()
    return trainer.measures()


def log(out: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


def curve(out: Path) -> list[dict[str, float]]:
    return [entry for entry in log(out) if "rgb" in entry]


def checkpoints(out: Path) -> set[str]:
    return {path.name for path in (out / "checkpoints").iterdir()}


@pytest.fixture(scope="module")
def one_process(data: Path, base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("one")
    train(config("mf", data, out, base=base, save_every=10))
    return out


@pytest.fixture(scope="module")
def two_processes(data: Path, base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same run by torchrun, sharded over two gloo processes, in two micro-batches each."""
    out = tmp_path_factory.mktemp("two")
    more = {"base": base, "save_every": 10, "scale.micro_batch_size": 1, "scale.checkpoint_activations": "true"}
    more |= LOOK | {"heldout.latents": data}
    options = [part for value in arguments("mf", data, out, **more) for part in ("--set", value)]
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [sys.executable, *launcher, "-m", "mforce.training.train", "_small-mf", *options]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr[-4000:]
    return out


def relative(found: dict[str, float], wanted: dict[str, float]) -> float:
    return max(abs(found[name] - wanted[name]) / max(abs(wanted[name]), 1e-3) for name in ("rgb", "depth"))


def test_two_processes_train_like_one(one_process: Path, two_processes: Path) -> None:
    one, two = curve(one_process), curve(two_processes)
    assert [entry["step"] for entry in one] == [entry["step"] for entry in two] == list(range(1, STEPS + 1))
    assert relative(two[0], one[0]) <= 1e-6
    assert max(map(relative, two, one)) <= 1e-3
    assert one[-1]["depth"] < 0.5 * one[0]["depth"]


def test_two_processes_see_the_same_held_out_error(data: Path, base: Path, two_processes: Path, tmp_path: Path) -> None:
    looks = [entry for entry in log(two_processes) if "heldout_absrel" in entry]
    assert [entry["step"] for entry in looks] == [25, 50]
    train(config("mf", data, tmp_path, base=base, **LOOK, **{"heldout.latents": data}))
    alone = [entry for entry in log(tmp_path) if "heldout_absrel" in entry]
    for found, wanted in zip(looks, alone, strict=True):
        assert found["heldout_absrel"] == pytest.approx(wanted["heldout_absrel"], rel=0.01)


def test_old_checkpoints_are_deleted(one_process: Path, two_processes: Path) -> None:
    assert checkpoints(one_process) == checkpoints(two_processes) == {"step-40", "step-50"}


def test_a_sharded_run_exports_the_model_of_one_process(one_process: Path, two_processes: Path) -> None:
    one, two = (load_model(out / "model", dtype=torch.float32) for out in (one_process, two_processes))
    weights = two.state_dict()
    for name, tensor in one.state_dict().items():
        torch.testing.assert_close(weights[name], tensor, rtol=2**-7, atol=2e-3)  # bfloat16, 50 steps


def test_one_process_goes_on_where_two_stopped(data: Path, base: Path, two_processes: Path, tmp_path: Path) -> None:
    shutil.copytree(two_processes / "checkpoints", tmp_path / "checkpoints")
    shutil.copy(two_processes / "log.jsonl", tmp_path)
    shutil.rmtree(tmp_path / "checkpoints" / "step-50")
    train(config("mf", data, tmp_path, base=base))
    resumed, whole = curve(tmp_path), curve(two_processes)
    assert [entry["step"] for entry in resumed] == list(range(1, STEPS + 1))
    assert max(map(relative, resumed[40:], whole[40:])) <= 1e-6


def test_muon_on_two_processes_trains_like_one_and_goes_on_alone(data: Path, base: Path, tmp_path: Path) -> None:
    """Sharded matrices are updated as torch.optim.Muon updates whole ones; either goes on from the other's state."""
    more = {"optimizer.name": "muon", "steps": 12, "optimizer.cooldown_steps": 3, "save_every": 8}
    train(config("mf", data, tmp_path / "one", base=base, **more))
    train_on_two("_small-mf", arguments("mf", data, tmp_path / "two", base=base, **more), tmp_path)
    one, two = curve(tmp_path / "one"), curve(tmp_path / "two")
    assert relative(two[0], one[0]) <= 1e-6
    assert max(map(relative, two, one)) <= 1e-3

    shutil.rmtree(tmp_path / "two" / "checkpoints" / "step-12")
    train(config("mf", data, tmp_path / "two", base=base, **more))
    assert max(map(relative, curve(tmp_path / "two")[8:], two[8:])) <= 1e-3


def test_the_papers_recipe_on_two_processes_trains_like_one(data: Path, base: Path, tmp_path: Path) -> None:
    """With part of every sharded block frozen, all of its losses, and samples and noise of the device."""
    more = {"steps": 6, "trainable": "paper", "recipe.depth_start": "paper", "recipe.depth_times": "plateau"}
    more |= {"recipe.depth_weighting": "velocity", "recipe.gradient_weight": 0.1, "base": base}
    more |= {"data.on_device": "true"}
    train(config("mf", data, tmp_path / "one", **more))
    train_on_two("_small-mf", arguments("mf", data, tmp_path / "two", **more), tmp_path)
    one, two = curve(tmp_path / "one"), curve(tmp_path / "two")
    assert relative(two[0], one[0]) <= 1e-6
    assert max(map(relative, two, one)) <= 1e-3
    assert two[-1]["gradient"] == pytest.approx(one[-1]["gradient"], rel=1e-3)
    source, trained = load_model(base).state_dict(), load_model(tmp_path / "two" / "model").state_dict()
    assert torch.equal(source["double_blocks.0.img_attn.qkv.weight"], trained["double_blocks.0.img_attn.qkv.weight"])


# The second save is killed when its first bytes are on disk.
_KILLED = """
import os, signal, sys, time
from pathlib import Path
from torch.distributed.checkpoint import HuggingFaceStorageWriter
from mforce.training.config_file import read_train_config
from mforce.training.train import train

write = HuggingFaceStorageWriter.write_data
def write_and_die(self, *arguments):
    written = write(self, *arguments)
    if "step-4" in str(self.path):
        Path(self.path, "shard-00001-model-00001-of-00001.safetensors").open("r+b").truncate(1000)
        os.kill(os.getpid(), signal.SIGKILL)
    return written
HuggingFaceStorageWriter.write_data = write_and_die
train(read_train_config(Path("_small-mf"), sys.argv[1:]))
"""


def test_a_kill_in_the_middle_of_a_save_loses_only_that_save(
    data: Path, base: Path, one_process: Path, tmp_path: Path
) -> None:
    settings = arguments("mf", data, tmp_path, base=base, save_every=2)
    killed = subprocess.run([sys.executable, "-c", _KILLED, *settings], capture_output=True, text=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr[-4000:]
    assert checkpoints(tmp_path) == {"step-2", "step-4.part"}

    trainer = Trainer(config("mf", data, tmp_path, base=base), join("cpu"))
    assert trainer.step == 2
    assert checkpoints(tmp_path) == {"step-2"}
    found = [measured_step(trainer) for _ in range(5)]
    trainer.close()
    for entry, wanted in zip(found, curve(one_process)[2:7], strict=True):
        for name, value in entry.items():
            assert float(f"{value:.8g}") == wanted[name]


def test_resuming_is_exact_to_the_last_bit(data: Path, base: Path, tmp_path: Path) -> None:
    settings = config("mf", data, tmp_path, base=base, **{"optimizer.name": "muon"})
    first = Trainer(settings, join("cpu"))
    measured_step(first)
    first.save()
    wanted = [measured_step(first) for _ in range(3)]
    first.close()
    second = Trainer(settings, join("cpu"))
    assert second.step == 1
    assert [measured_step(second) for _ in range(3)] == wanted
    second.close()
    for name, tensor in first.state.tensors().items():
        assert torch.equal(second.state.tensors()[name], tensor), name


def test_sigterm_saves_and_stops(
    data: Path, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    step = Trainer.train_step

    def step_and_stop(trainer: Trainer) -> None:
        if trainer.step == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        step(trainer)

    monkeypatch.setattr(Trainer, "train_step", step_and_stop)
    before = signal.getsignal(signal.SIGTERM)
    assert train(config("mf", data, tmp_path, base=base)) == (3, signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) == before
    assert checkpoints(tmp_path) == {"step-3"}
    assert load_model(tmp_path / "model").config.has_depth
    assert f"step 3 of {STEPS}" in capsys.readouterr().out


def test_a_full_disk_is_said_and_costs_no_checkpoint(data: Path, base: Path, tmp_path: Path) -> None:
    """Files may not grow past 20 kB, as if the disk had no more room."""
    trainer = Trainer(config("mf", data, tmp_path, base=base), join("cpu"))
    trainer.train_step()
    trainer.save()
    trainer.checkpoints.finish()
    trainer.train_step()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
    try:
        trainer.save()
        with pytest.raises(SaveError, match=r"step 2 could not be written .*; step 1 is safe there: free some space"):
            trainer.close()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert checkpoints(tmp_path) == {"step-1"}


def test_a_gradient_that_is_not_finite_stops_and_keeps_its_batch(base: Path, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    tensors = tiny_training.write_latents(folder)
    tiny_training.write_words(folder)
    tensors["rgb"][7, 0, 0, 0] = float("inf")
    captions = {"captions": json.dumps(["red cube"] * 8)}
    save_file(tensors, folder / "latents-0.safetensors", metadata=captions)
    out = tmp_path / "out"
    with pytest.raises(DivergedError, match=r"not finite at step \d; the batch is in .*not-finite-step"):
        train(config("mf", folder, out, base=base))
    (kept,) = out.glob("not-finite-*.safetensors")
    with safe_open(kept, framework="pt") as batch:
        assert {"0.batch.rgb", "0.batch.depth", "0.noise.t_rgb", "0.noise.rgb"} <= set(batch.keys())
        assert not torch.isfinite(batch.get_tensor("0.batch.rgb")).all()


def test_a_batch_that_breaks_a_student_is_kept(tmp_path: Path) -> None:
    """The scale of student and teacher is one tensor, and a file takes no two that share memory."""
    folder, out = tmp_path / "data", tmp_path / "out"
    tensors = tiny_training.write_latents(folder)
    tiny_training.write_words(folder)
    tensors["rgb"].fill_(float("inf"))
    captions = {"captions": json.dumps(["red cube"] * 8)}
    save_file(tensors, folder / "latents-0.safetensors", metadata=captions)
    more = {"architecture.use_guidance_embed": "true", "distillation.teacher_scale": "input", "log_every": 1}
    base = tiny_training.write_base(tmp_path / "base", config("distill", folder, out, base=folder, **more))
    with pytest.raises(DivergedError):
        train(config("distill", folder, out, base=base, **more))
    (kept,) = out.glob("not-finite-*.safetensors")
    with safe_open(kept, framework="pt") as batch:
        assert torch.equal(batch.get_tensor("0.noise.scale"), batch.get_tensor("0.noise.teacher_scale"))


def test_a_checkpoint_of_another_model_is_refused(data: Path, base: Path, one_process: Path, tmp_path: Path) -> None:
    shutil.copytree(one_process / "checkpoints", tmp_path / "checkpoints")
    with pytest.raises(ValueError, match="is of another model or optimizer"):
        Trainer(config("mf", data, tmp_path, base=base, trainable="depth"), join("cpu"))


def test_processes_that_do_not_fit_are_refused(data: Path, base: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="batch_size 4 cannot be shared equally by 3"):
        check_processes(config("mf", data, tmp_path, base=base).batch_size, 3)


def test_a_teacher_on_the_host_teaches_the_same(data: Path, base: Path, tmp_path: Path) -> None:
    first = {}
    for place in ("device", "host"):
        settings = config("mf", data, tmp_path / place, base=base, **{"scale.teacher": place})
        trainer = Trainer(settings, join("cpu"))
        first[place] = measured_step(trainer)
        trainer.close()
    assert first["device"] == first["host"]
    assert first["device"]["distillation"] > 0


def test_a_depth_only_run_leaves_image_and_text_alone(data: Path, base: Path, tmp_path: Path) -> None:
    train(config("mf", data, tmp_path, base=base, steps=3, trainable="depth", **{"optimizer.warmup_steps": 0}))
    source, trained = load_model(base).state_dict(), load_model(tmp_path / "model").state_dict()
    for name, tensor in source.items():
        assert torch.equal(trained[name], tensor), name
    assert trained["depth_final_layer.linear.weight"].any()
