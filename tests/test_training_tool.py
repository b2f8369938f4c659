"""What the training tool says and does around the steps: refusals, keys, stops, logs, the newcomer's path."""

import csv
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from mforce.mforce_core.encoders.autoencoder_files import autoencoder_files, load_autoencoder, read_tensors
from mforce.mforce_core.encoders.words import load_text_encoder
from mforce.mforce_core.model.config import Architecture, ConfigError
from mforce.mforce_core.weights.bundle import WORDS_PREFIX
from mforce.mforce_core.weights.named_parts import named_part
from mforce.training.config import ArchitectureConfig, OptimizerConfig
from mforce.training.config_file import PRESETS, read_train_config
from mforce.training.data.encoders import autoencoder_mark
from mforce.training.keys import commented_file, keys_of, reference, sections
from mforce.training.log import read_log
from mforce.training.losses import Errors
from mforce.training.meter import Meter
from mforce.training.optimizer import learning_rate
from mforce.training.processes import join
from mforce.training.train import Trainer, train
from tiny_training import arguments, config, write_base, write_latents

# One process saving alone is meant.
pytestmark = pytest.mark.filterwarnings("ignore:torch.distributed is disabled")

ROOT = Path(__file__).parent.parent
NANO = ROOT / "models" / "nano"


@pytest.fixture(scope="module")
def base(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    return write_base(folder, config("t2i", data, folder))


# Refusals


@pytest.mark.parametrize(
    ("wrong", "right"),
    [("stepz=1", "steps"), ("recipe.depth_wieghting=x", "depth_weighting"), ("architecture.heads=2", "num_heads")],
)
def test_an_unknown_key_suggests_the_nearest(data: Path, tmp_path: Path, wrong: str, right: str) -> None:
    with pytest.raises(ConfigError, match=rf"{wrong.split('=')[0]}: .*did you mean .*{right}\?"):
        read_train_config(Path("nano-t2i"), [*arguments("t2i", data, tmp_path), wrong])


def test_a_device_that_is_not_there_is_refused(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(ConfigError, match="device is cuda, but PyTorch finds no CUDA device here"):
        train(config("t2i", data, tmp_path, device="cuda"))
    with pytest.raises(ConfigError, match="device: gpu is no device"):
        train(config("t2i", data, tmp_path, device="gpu"))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(ConfigError, match="device is cuda:1, but PyTorch finds 1 CUDA device"):
        train(config("t2i", data, tmp_path, device="cuda:1"))


def test_data_of_other_sizes_names_the_key_before_the_base_is_loaded(
    data: Path, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mforce.training.train.load_model", lambda path: pytest.fail("loaded the base"))
    cases = {
        r"architecture\.context_in_dim is 12, but .* of .* are 8 wide": {"architecture.context_in_dim": 12},
        r"architecture\.in_channels is 4, but the latents of .* have 8 channels": {"architecture.in_channels": 4},
        r"architecture\.depth_channels is 64, patches of 8x8 pixels, .* are 8x8 for latents of 2x2": {
            "architecture.depth_channels": 64,
            "base": base,
        },
    }
    for message, more in cases.items():
        stage = "mf" if "base" in more else "t2i"
        with pytest.raises(ConfigError, match=message):
            train(config(stage, data, tmp_path, **more))
    write_latents(tmp_path / "flat", depth=False)
    with pytest.raises(ConfigError, match=r"data\.latents: stage mf needs depth, which .*flat does not have"):
        train(config("mf", data, tmp_path, base=base, **{"data.latents": tmp_path / "flat"}))
    write_latents(tmp_path / "mixed")
    write_latents(tmp_path / "mixed", shape=(3, 3), file="latents-1.safetensors")
    with pytest.raises(ValueError, match=r"2x2 .*latents-1\.safetensors .*3x3.*: encode them at one size"):
        train(config("t2i", data, tmp_path, **{"data.latents": tmp_path / "mixed"}))


def test_a_nan_in_the_base_names_its_tensor(data: Path, base: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    (file,) = base.glob("*.safetensors")
    tensors = load_file(file)
    name = next(key for key in tensors if key.endswith("single_blocks.0.linear2.weight"))
    tensors[name][3, 3] = torch.nan
    save_file(tensors, broken / file.name, metadata={"format": "pt"})
    (broken / "config.json").write_bytes((base / "config.json").read_bytes())
    with pytest.raises(ConfigError, match=r"base: single_blocks\.0\.linear2\.weight holds values that are not finite"):
        train(config("mf", data, tmp_path / "out", base=broken))


def test_going_on_as_another_run_needs_a_flag(data: Path, tmp_path: Path) -> None:
    out, other = tmp_path / "out", tmp_path / "other"
    write_latents(other)
    train(config("t2i", data, out))
    cases = {
        "a run of 8 steps with another seed: .*--changed": {"seed": 5},
        "a run of 8 steps with another data: .*--changed": {"data.latents": other},
        r"a run of 8 steps, more than steps = 4: .*--changed": {"steps": 4},
    }
    for message, more in cases.items():
        with pytest.raises(ConfigError, match=message):
            train(config("t2i", data, out, **more))
    longer = {"seed": 5, "steps": 10}
    with pytest.raises(ConfigError):
        train(config("t2i", data, out, **longer))
    assert train(config("t2i", data, out, **longer), changed=True).step == 10
    # What only says how fast or how long may change without a word.
    assert train(config("t2i", data, out, **longer | {"steps": 12, "log_every": 3})).step == 12


def test_a_run_of_an_earlier_version_goes_on(data: Path, tmp_path: Path) -> None:
    """Keys that came later are at their defaults in it."""
    train(config("t2i", data, tmp_path))
    file = tmp_path / "config.json"
    values = json.loads(file.read_text())
    for section, key in (("architecture", "num_kv_heads"), ("architecture", "rgb_prediction"), ("data", "mixture")):
        del values[section][key]
    file.write_text(json.dumps(values))
    assert train(config("t2i", data, tmp_path, steps=10)).step == 10


# Keys


def test_the_page_of_keys_is_current() -> None:
    page = (ROOT / "docs" / "training-keys.md").read_text(encoding="utf-8")
    assert page.rstrip() == reference().rstrip(), "mforce train --keys > docs/training-keys.md"


def test_every_key_has_a_meaning() -> None:
    for title, section in sections():
        for key in keys_of(section):
            assert key.meaning.endswith("."), f"{title}.{key.name}"
    assert set(ArchitectureConfig.model_fields) == set(Architecture.__dataclass_fields__)
    assert Architecture(**ArchitectureConfig().model_dump()) == Architecture()


@pytest.mark.parametrize("preset", sorted(path.stem for path in PRESETS.glob("[!_]*.toml")))
def test_a_written_template_is_its_preset(preset: str, tmp_path: Path) -> None:
    file = tmp_path / "my.toml"
    file.write_text(commented_file(preset), encoding="utf-8")
    assert read_train_config(file, []) == read_train_config(Path(preset), [])


def test_every_default_of_a_template_can_be_uncommented(tmp_path: Path) -> None:
    """Lines that show a default give the same configuration when they are made real."""
    text = commented_file("nano-mf")
    shown = "\n\n".join(part for part in text.split("\n\n") if not part.startswith("# ["))  # sections that are there
    real = re.sub(r"^# (\w+ = (?!not set|\.\.\.).*)$", r"\1", shown, flags=re.M)
    assert real.count("\n# ") < text.count("\n# ")
    file = tmp_path / "my.toml"
    file.write_text(real, encoding="utf-8")
    assert read_train_config(file, []) == read_train_config(Path("nano-mf"), [])


def test_a_file_anywhere_extends_a_preset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "mine" / "my.toml"
    file.parent.mkdir()
    file.write_text('extends = "nano-t2i"\nsteps = 7\n[optimizer]\nlearning_rate = 1.0\n')
    monkeypatch.chdir(tmp_path)
    found, preset = read_train_config(file, []), read_train_config(Path("nano-t2i"), [])
    assert (found.steps, found.optimizer.learning_rate) == (7, 1.0)
    optimizer = preset.optimizer.model_copy(update={"learning_rate": 1.0})
    assert found == preset.model_copy(update={"steps": 7, "optimizer": optimizer})
    assert found.text_encoder is not None
    assert found.text_encoder.resolve() == NANO.resolve()
    beside = file.with_name("other.toml")
    beside.write_text('extends = "my.toml"\nsteps = 9\n')
    assert read_train_config(beside, []).optimizer.learning_rate == 1.0


# Learning rate, stops, logs


@pytest.mark.parametrize("steps", [1, 10, 500, 2200, 10000])
def test_every_run_reaches_its_learning_rate_and_comes_down(steps: int) -> None:
    optimizer = OptimizerConfig(learning_rate=1.0)
    rates = [learning_rate(step, steps, optimizer) for step in range(steps)]
    assert max(rates) == 1.0
    assert steps < 50 or rates[-1] < 0.01
    if steps == 500:
        assert rates.index(1.0) == 44  # 200 to 2000, as of 2200


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_stopped_run_ends_with_its_signals_code(data: Path, tmp_path: Path, number: int, code: int) -> None:
    check_stop(data, tmp_path, number, code)


def test_a_stopped_run_of_two_processes_ends_with_its_signals_code(data: Path, tmp_path: Path) -> None:
    check_stop(data, tmp_path, signal.SIGINT, 130, "--processes", "2")


def check_stop(data: Path, out: Path, number: int, code: int, *more: str) -> None:
    """Stop a run of many steps when it has logged some; it has saved, and a next command would not start."""
    options = [part for value in arguments("t2i", data, out, steps=10**6, log_every=1) for part in ("--set", value)]
    command = [sys.executable, "-m", "mforce", "train", "nano-t2i", *options, *more]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    running = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment)
    while running.poll() is None and not read_log(out):
        time.sleep(0.2)
    running.send_signal(number)
    output, _ = running.communicate()
    assert running.returncode == code, output
    (saved,) = (out / "checkpoints").iterdir()
    step = int(saved.name.removeprefix("step-"))
    assert f"step {step} of 1000000" in output
    assert max(entry["step"] for entry in read_log(out)) == step


def test_a_log_entry_holds_the_means_of_its_steps(data: Path, base: Path, tmp_path: Path) -> None:
    for every in (1, 4):
        train(config("mf", data, tmp_path / str(every), base=base, log_every=every, seed=3))
    single, means = read_log(tmp_path / "1"), read_log(tmp_path / "4")
    assert [entry["step"] for entry in means] == [4, 8]
    for entry, steps in zip(means, (single[:4], single[4:]), strict=True):
        for name in ("rgb", "depth", "distillation", "gradient_norm"):
            assert entry[name] == pytest.approx(np.mean([step[name] for step in steps]), rel=1e-6)
        assert entry["lr"] == steps[-1]["lr"]
        assert entry["images_per_second"] > 0
    assert "mean_images_per_second" not in means[0]
    assert means[1]["mean_images_per_second"] == pytest.approx(means[1]["images_per_second"])
    assert any(name.startswith("rgb@") for name in means[0])
    with (tmp_path / "4" / "log.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["depth"]) for row in rows] == [entry["depth"] for entry in means]


def test_errors_are_told_apart_by_noise_level() -> None:
    generator = torch.Generator().manual_seed(0)
    error, t = torch.rand(2, 200, generator=generator)
    counted = torch.rand(200, generator=generator) < 0.7
    t[:2] = torch.tensor([0.0, 1.0])
    meter = Meter(join("cpu"))
    for part in (slice(0, 50), slice(50, 200)):
        meter.add({"rgb": error[part].sum()}, {"rgb": Errors(error[part], t[part], counted[part])})
    meter.end_step(0, {"gradient_norm": torch.tensor(2.0)})
    found = meter.read()
    for low in (0, 0.25, 0.5, 0.75):
        inside = counted & (t >= low) & (t < low + 0.25 if low < 0.75 else t <= 1)
        assert found[f"rgb@{low:.2f}-{low + 0.25:.2f}"] == pytest.approx(error[inside].mean().item(), rel=1e-6)
    assert found["rgb"] == pytest.approx(error.sum().item(), rel=1e-6)
    assert found["gradient_norm"] == 2.0


def test_text_to_image_has_a_held_out_loss(data: Path, tmp_path: Path) -> None:
    more = {"heldout.latents": data, "heldout.every": 20, "heldout.samples": 8, "steps": 40}
    more |= {"optimizer.learning_rate": 1e-2, "optimizer.ema_decay": 0.5}
    train(config("t2i", data, tmp_path, **more))
    looks = [entry for entry in read_log(tmp_path) if "heldout_rgb" in entry]
    assert [entry["step"] for entry in looks] == [20, 40]
    assert looks[1]["heldout_rgb"] < looks[0]["heldout_rgb"]
    assert all(entry["heldout_rgb_standard_error"] > 0 for entry in looks)


def test_the_report_has_every_loss_also_a_users(data: Path, base: Path, tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text("def mine(prediction, batch, noise):\n    return prediction.velocity.abs().mean((1, 2))\n")
    terms = {"recipe.terms": f'["{file}:mine"]', "recipe.gradient_weight": 0.1, "log_every": 2}
    train(config("mf", data, tmp_path / "out", base=base, **terms))
    report = (tmp_path / "out" / "report.md").read_text()
    for name in ("rgb", "depth", "distillation", "gradient", "mine"):
        assert f"| {name} |" in report


def test_the_held_out_source_is_closed_to_training(data: Path, tmp_path: Path) -> None:
    """A look leaves no trace: the same curve with and without it."""
    look = {"heldout.latents": data, "heldout.every": 2, "heldout.samples": 4}
    curves = []
    for name, more in (("a", {}), ("b", look)):
        train(config("t2i", data, tmp_path / name, log_every=1, **more))
        curves.append([entry["rgb"] for entry in read_log(tmp_path / name) if "rgb" in entry])
    assert curves[0] == curves[1]


# The newcomer


def mforce(*arguments: object) -> str:
    command = [sys.executable, "-m", "mforce", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def documented_commands() -> list[list[str]]:
    """Those under "From pictures of your own" in docs/training.md."""
    page = (ROOT / "docs" / "training.md").read_text(encoding="utf-8")
    block = page.split("## From pictures of your own")[1].split("```bash\n")[1].split("```")[0]
    return [shlex.split(line.split(" #")[0])[1:] for line in block.replace("\\\n", " ").splitlines()]


def test_from_a_folder_of_40_pictures_to_a_model_that_makes_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The documented commands alone, at a smaller size: the model opens without a word about its parts."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models").symlink_to(ROOT / "models", target_is_directory=True)
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    rng = np.random.default_rng(0)
    for index in range(40):
        Image.fromarray(rng.integers(0, 256, (48, 40, 3), dtype=np.uint8)).save(pictures / f"{index:02}.png")
        np.save(pictures / f"{index:02}.depth.npy", rng.uniform(1, 9, (48, 40)).astype(np.float32))
        (pictures / f"{index:02}.txt").write_text("a red cube")
    small = {"architecture.hidden_size": 32, "architecture.num_heads": 1, "architecture.axes_dim": [8, 8, 8, 8]}
    small |= {"architecture.depth_single": 1, "batch_size": 8, "steps": 3, "compile": "false"}
    settings = [part for key, value in small.items() for part in ("--set", f"{key}={value}")]
    commands = documented_commands()
    assert [" ".join(words[:2]) for words in commands[:2]] == ["data check", "data encode"]
    for words in commands:
        words = ["32" if word == "128" else word for word in words]
        more = settings if words[0] == "train" and "--init" not in words else []
        mforce(*words, *more, *(["--steps", 2] if words[0] == "joint" else []))
    assert (tmp_path / "result" / "rgb.png").exists()
    assert (tmp_path / "result" / "depth.exr").exists()
    written = json.loads((tmp_path / "runs" / "nano-mf" / "model" / "config.json").read_text())
    assert written["text_encoder"] == "mforce:models/nano"
    assert written["vae"] == "mforce:models/nano/autoencoder.safetensors"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("//host/share", "use a path of this machine"),
        ("s3://bucket/vae", "use a path of this machine"),
        ({"a": 1}, "use a path of this machine"),
        ("/nowhere/vae", "it is not there"),
        ("mforce:../secret", "leads out of the package"),
    ],
)
def test_a_folder_that_names_what_cannot_be_used_is_said(tmp_path: Path, name: object, message: str) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"vae": name}))
    with pytest.raises(ValueError, match=message):
        named_part(tmp_path, "vae")
    assert named_part(tmp_path, "text_encoder") is None


@pytest.mark.parametrize(
    ("files", "named", "copied"),
    [
        (["vae/diffusion_pytorch_model.safetensors"], ".", ["autoencoder.safetensors"]),
        (["diffusion_pytorch_model.safetensors"], ".", ["autoencoder.safetensors"]),
        (["flux2-vae.safetensors"], "flux2-vae.safetensors", ["autoencoder.safetensors"]),
        (["ae_encoder.safetensors", "ae_decoder.safetensors"], "ae_encoder.safetensors", None),
        (["ae_encoder.safetensors", "ae_decoder.safetensors"], ".", None),
    ],
    ids=["pipeline", "diffusers", "file", "half", "halves"],
)
def test_every_form_of_an_autoencoder_is_copied(
    data: Path, tmp_path: Path, files: list[str], named: str, copied: list[str] | None
) -> None:
    """Into the exported folder, under names by which it is found there."""
    vae, latents = tmp_path / "vae", tmp_path / "latents"
    for name in files:
        (vae / name).parent.mkdir(parents=True, exist_ok=True)
        save_file({"a": torch.tensor([len(name)])}, vae / name)
    write_latents(latents)
    (latents / "encode.json").write_text(json.dumps({"parts": {"vae": str(vae / named)}}))
    assert autoencoder_mark(vae / named)
    more = {"text_encoder": data, "steps": 1, "copy_parts": "true"}
    train(config("t2i", latents, tmp_path / "run", **more))
    found = autoencoder_files(tmp_path / "run" / "model")
    assert sorted(file.name for file in found) == sorted(copied or files)
    assert [load_file(file) for file in found] == [load_file(file) for file in autoencoder_files(vae / named)]


def test_of_a_one_file_checkpoint_the_parts_alone_are_copied(data: Path, tmp_path: Path) -> None:
    golden, latents, file = Path(__file__).parent / "golden" / "vae", tmp_path / "latents", tmp_path / "all.safetensors"
    words = load_text_encoder(data)
    tensors = {f"vae.{name}": tensor for name, tensor in read_tensors(golden).items()}
    tensors |= {f"{WORDS_PREFIX}word_embedding.weight": words.table, "model.diffusion_model.big": torch.zeros(2**20)}
    save_file(tensors, file, metadata=words.metadata())
    write_latents(latents)
    (latents / "encode.json").write_text(json.dumps({"parts": {"vae": str(file)}}))
    train(config("t2i", latents, tmp_path / "run", text_encoder=file, steps=1, copy_parts="true"))
    model = tmp_path / "run" / "model"
    for found, wanted in ((load_autoencoder(model), load_autoencoder(golden)), (load_text_encoder(model), words)):
        ours, theirs = (
            {"table": part.table} if hasattr(part, "table") else part.state_dict() for part in (found, wanted)
        )
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert "model.diffusion_model.big" not in load_file(model / "autoencoder.safetensors")
    assert list(load_file(model / "text_encoder.safetensors")) == ["word_embedding.weight"]


def test_trainer_is_silent_about_what_it_does_not_change(data: Path, tmp_path: Path) -> None:
    """A second trainer on the same folder goes on without the flag."""
    first = Trainer(config("t2i", data, tmp_path), join("cpu"))
    first.train_step()
    first.save()
    first.close()
    assert Trainer(config("t2i", data, tmp_path), join("cpu")).step == 1


def test_training_opens_without_the_modules_that_windows_lacks() -> None:
    code = "import sys; sys.modules |= dict.fromkeys(('resource', 'fcntl', 'pwd', 'grp'))\n"
    code += "from mforce.training.train import train\nfrom mforce.training.log import peak_memory\nimport torch\n"
    code += "print(peak_memory(torch.device('cpu')))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "None", done.stderr
