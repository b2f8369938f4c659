"""One file with transformer, autoencoder and text encoder, written and used."""

import json
import weakref
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from mforce.cli.checkpoint_info import describe_checkpoint
from mforce.cli.tables import print_checkpoint
from mforce.mforce_core import Pipeline, load_autoencoder, load_model, load_text_encoder
from mforce.mforce_core.conversion.bundling import BundleError, text_encoder_part
from mforce.mforce_core.conversion.convert import ConversionError, convert_model
from mforce.mforce_core.parts import Parts, find_parts
from mforce.mforce_core.weights.bundle import text_encoder_names
from mforce.mforce_core.weights.checkpoint import save_model
from mforce.mforce_core.weights.header import read_header
from mforce.mforce_core.weights.quantization import read_marker
from tiny_model import TINY, random_model
from tiny_qwen import HIDDEN, qwen_config

ROOT = Path(__file__).parent.parent
NANO = ROOT / "models" / "nano"
VAE = "autoencoder.safetensors"


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """The built-in model in float32, however many bits its own file has, with its parts."""
    if not (NANO / "model.safetensors").is_file():
        pytest.skip("the built-in model's weights are not in models/nano")
    folder = tmp_path_factory.mktemp("plain")
    save_model(load_model(NANO, dtype=torch.float32), folder, dtype=torch.float32, image_size=(128, 128))
    for name in ("text_encoder.safetensors", VAE):
        (folder / name).symlink_to(NANO / name)
    return folder


@pytest.fixture(scope="module")
def bundle(plain, tmp_path_factory):
    out = tmp_path_factory.mktemp("bundle") / "nano.safetensors"
    convert_model(plain, out, to="fp32", bundle=True)
    return out


def test_the_built_in_model_goes_into_one_file_as_it_is_stored(tmp_path):
    if not (NANO / "model.safetensors").is_file():
        pytest.skip("the built-in model's weights are not in models/nano")
    convert_model(NANO, tmp_path / "nano.safetensors", bundle=True)
    stored, written = read_header(NANO), read_header(tmp_path / "nano.safetensors")
    assert (written.architecture, written.dtypes) == (stored.architecture, stored.dtypes)
    found, expected = load_model(tmp_path / "nano.safetensors").state_dict(), load_model(NANO).state_dict()
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())
    assert find_parts(str(tmp_path / "nano.safetensors")).trained_size() == find_parts("nano").trained_size()


def test_all_parts_come_back(bundle):
    parts = find_parts(str(bundle))
    assert (parts.model, parts.text_encoder, parts.vae) == (bundle, bundle, bundle)
    assert parts.trained_size() == find_parts("nano").trained_size()
    assert all(files == [bundle] for files in parts.files().values())
    whole = find_parts("nano")
    for load, ours, theirs in (
        (load_model, parts.model, whole.model),
        (load_autoencoder, parts.vae, whole.vae),
    ):
        found, expected = load(ours, dtype=torch.float32).state_dict(), load(theirs, dtype=torch.float32).state_dict()
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())
    found, expected = load_text_encoder(parts.text_encoder), load_text_encoder(whole.text_encoder)
    assert (found.vocabulary, found.length) == (expected.vocabulary, expected.length)
    assert torch.equal(found.table, expected.table)


def test_a_bundle_can_be_converted_again(bundle, tmp_path):
    convert_model(bundle, tmp_path / "again.safetensors", to="fp32", bundle=True)
    assert (tmp_path / "again.safetensors").stat().st_size == bundle.stat().st_size
    convert_model(bundle, tmp_path / "alone.safetensors", to="fp32")
    assert not read_header(tmp_path / "alone.safetensors").others
    with pytest.raises(BundleError, match="no autoencoder to put into the file"):
        convert_model(tmp_path / "alone.safetensors", tmp_path / "none.safetensors", bundle=True)


def test_a_bundle_and_its_folder_make_the_same_picture_and_depth(bundle):
    made = [
        Pipeline.load(model, dtype="float32", device="cpu").joint("a red sphere", steps=2, seed=3)
        for model in (NANO, bundle)
    ]
    assert np.array_equal(made[0].image, made[1].image)
    assert np.array_equal(made[0].depth, made[1].depth, equal_nan=True)  # two steps leave pixels without depth


def test_parts_are_named_and_keep_their_precision(plain, tmp_path):
    """One after the other, into files of different precision, by their paths."""
    words = load_text_encoder(NANO)
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    words.save(moved / "my_words.safetensors")
    halved = {name: tensor.bfloat16() for name, tensor in load_file(NANO / "autoencoder.safetensors").items()}
    save_file(halved, moved / "my_vae.safetensors")
    out = tmp_path / "out.safetensors"
    parts = {"text_encoder": moved / "my_words.safetensors", "vae": moved / "my_vae.safetensors"}
    convert_model(plain, out, to="int8", **parts)
    stored = load_file(out)
    assert torch.equal(stored["text_encoders.words.word_embedding.weight"], words.table)
    for name, tensor in halved.items():
        assert stored[f"vae.{name}"].dtype == torch.bfloat16
        assert torch.equal(stored[f"vae.{name}"], tensor)
    with pytest.raises(ConversionError, match="is the file that is converted"):
        convert_model(plain, moved / "my_vae.safetensors", overwrite=True, **parts)


@pytest.mark.parametrize("how", ["fp8", "int8", "older names"])
def test_a_quantized_model_is_bundled_as_it_is(how, plain, tmp_path):
    source, out = tmp_path / "quantized.safetensors", tmp_path / "everything.safetensors"
    convert_model(plain, source, to="int8" if how == "int8" else "fp8")
    if how == "older names":
        tensors = {name.replace(".weight_scale", ".scale_weight"): value for name, value in load_file(source).items()}
        tensors = {name: value for name, value in tensors.items() if not name.endswith(".comfy_quant")}
        with safe_open(source, framework="pt") as file:
            metadata = file.metadata()
        save_file(tensors | {"scaled_fp8": torch.zeros(2, dtype=torch.float8_e4m3fn)}, source, metadata=metadata)
    with pytest.raises(ConversionError, match="is quantized already"):
        convert_model(source, out, to="bf16", vae=NANO)
    convert_model(source, out, vae=NANO, text_encoder=NANO)
    alone, together = read_header(source), read_header(out)
    assert together.quantized.keys() == alone.quantized.keys()
    assert {settings["format"] for settings in together.quantized.values()} == {
        settings["format"] for settings in alone.quantized.values()
    }
    assert not any("scale_weight" in name or name == "scaled_fp8" for name in together.sources)
    found, expected = load_model(out).state_dict(), load_model(source).state_dict()
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())
    assert find_parts(str(out)).vae == out


def test_parts_inside_a_checkpoint_in_shards(bundle, tmp_path):
    """The autoencoder in both shards, the words in the second."""
    tensors = load_file(bundle)
    with safe_open(bundle, framework="pt") as file:
        metadata = file.metadata()
    names = sorted(tensors, key=lambda name: (name.startswith("text_encoders."), len(name) % 3, name))
    half = len(names) // 2
    shards = [tmp_path / f"model-0000{number}-of-00002.safetensors" for number in (1, 2)]
    for path, own in zip(shards, (names[:half], names[half:]), strict=True):
        save_file({name: tensors[name] for name in own}, path, metadata=metadata)
    for model in (tmp_path, *shards):
        parts = find_parts(str(model))
        assert sorted(parts.files()["vae"]) == shards
        found, expected = load_autoencoder(parts.vae).state_dict(), load_autoencoder(bundle).state_dict()
        assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())
        assert load_text_encoder(parts.text_encoder).vocabulary == load_text_encoder(bundle).vocabulary
        assert {part.part for part in describe_checkpoint(model).parts} == {"vae", "text_encoder"}
    convert_model(tmp_path, tmp_path / "again.safetensors", to="fp32", bundle=True)
    assert load_file(tmp_path / "again.safetensors").keys() == tensors.keys()


def test_a_configuration_without_end_is_not_read(bundle, tmp_path):
    for name in ("model.safetensors", "text_encoder.safetensors", VAE):
        (tmp_path / name).symlink_to(NANO / name)
    (tmp_path / "config.json").write_bytes(b" " * (1 << 24) + b"{}")
    parts = Parts(tmp_path, tmp_path / "text_encoder.safetensors", tmp_path)
    with pytest.raises(ValueError, match="larger than 16,777,216 bytes"):
        parts.trained_size()
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(ValueError, match="cannot be read"):
        parts.trained_size()


def test_info_lists_the_parts(bundle, capsys):
    found = describe_checkpoint(bundle)
    names = {part.part: part for part in found.parts}
    assert names["text_encoder"].name == "words"
    assert names["text_encoder"].dtypes == {"F32": 1}
    assert names["vae"].bytes == sum(tensor.nbytes for tensor in load_file(NANO / VAE).values())
    assert sum(part.tensors for part in found.parts) == found.other_tensors
    print_checkpoint(found)
    said = capsys.readouterr().out
    assert "inside: vae" in said
    assert "other tensors" not in said


@pytest.mark.parametrize(
    ("stored", "encoder"),
    [
        ("text_encoders.qwen3_8b.transformer.model.layers.0.x", "qwen3_8b"),
        ("text_encoders.qwen3_8b.model.layers.0.x", "qwen3_8b"),
        ("text_encoders.model.layers.0.x", "text_encoder"),
        ("text_encoder.model.layers.0.x", "text_encoder"),
        ("text_encoder.transformer.model.layers.0.x", "text_encoder"),
    ],
)
def test_prefixes_of_text_encoders(stored, encoder):
    assert text_encoder_names([stored, "img_in.weight", "vae.x"]) == {encoder: {"model.layers.0.x": stored}}


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A random transformer that takes the features of a Qwen3 of HIDDEN features, and that Qwen3 in two shards."""
    transformers = pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp("small")
    sizes = replace(TINY, in_channels=128, depth_channels=256, context_in_dim=3 * HIDDEN)
    transformer = random_model(sizes, std=0.05)
    save_model(transformer, folder / "model", dtype=torch.float32)
    qwen = transformers.Qwen3ForCausalLM(qwen_config(64, layers=28)).bfloat16()
    qwen.save_pretrained(folder / "qwen", max_shard_size="40KB")
    assert len(list((folder / "qwen").glob("*.safetensors"))) > 1
    qwen.model.save_pretrained(folder / "headless")
    whole = {name: tensor.clone() for name, tensor in qwen.state_dict().items()}
    save_file(whole, folder / "qwen.safetensors")
    return folder, {name: tensor for name, tensor in whole.items() if name.startswith("model.")}


@pytest.mark.parametrize("form", ["qwen", "headless", "qwen.safetensors"])
def test_qwen_goes_in_under_the_names_of_comfyui(small, form, tmp_path):
    folder, expected = small
    out, prefix = tmp_path / "out.safetensors", "text_encoders.qwen3.transformer."
    convert_model(folder / "model", out, to="fp32", text_encoder=folder / form)
    stored = load_file(out)
    inside = {name.removeprefix(prefix): tensor for name, tensor in stored.items() if name.startswith(prefix)}
    assert inside.keys() - {"model.lm_head.weight"} == expected.keys()
    for name, tensor in expected.items():
        assert inside[name].dtype == torch.bfloat16
        assert torch.equal(inside[name], tensor)
    load_model(out)

    convert_model(out, tmp_path / "again.safetensors", to="fp32", text_encoder=out)
    assert load_file(tmp_path / "again.safetensors").keys() == stored.keys()
    with pytest.raises(ValueError, match="holds Qwen3 without its tokenizer"):
        find_parts(str(out))


def test_layers_that_only_the_metadata_calls_quantized_get_a_mark(small, tmp_path):
    folder, expected = small
    layer, settings = "model.layers.0.mlp.down_proj", {"format": "float8_e4m3fn"}
    values = {f"{layer}.weight": expected[f"{layer}.weight"].to(torch.float8_e4m3fn)}
    scaled = expected | values | {f"{layer}.weight_scale": torch.tensor(0.5)}
    metadata = {"_quantization_metadata": json.dumps({"format_version": "1.0", "layers": {layer: settings}})}
    save_file(scaled, tmp_path / "fp8.safetensors", metadata)
    convert_model(folder / "model", tmp_path / "out.safetensors", text_encoder=tmp_path / "fp8.safetensors")
    stored = load_file(tmp_path / "out.safetensors")
    prefix = "text_encoders.qwen3.transformer."
    assert read_marker(stored[f"{prefix}{layer}.comfy_quant"]) == settings
    assert torch.equal(stored[f"{prefix}{layer}.weight"].float(), values[f"{layer}.weight"].float())
    assert not read_header(tmp_path / "out.safetensors").quantized


def test_parts_of_other_models_are_refused(small, tmp_path):
    folder, expected = small
    out = tmp_path / "out.safetensors"
    wide = {name: torch.zeros(24) if tensor.ndim == 1 else tensor for name, tensor in expected.items()}
    save_file(wide, tmp_path / "wide.safetensors")
    save_file({"a.weight": torch.zeros(2)}, tmp_path / "other.safetensors")
    twice = {f"text_encoders.{name}.model.layers.0.x": torch.zeros(2) for name in ("clip_l", "t5xxl")}
    save_file(twice, tmp_path / "two.safetensors")
    for file, message in (
        ("wide.safetensors", "gives 72 features and the model needs 48"),
        ("other.safetensors", "neither Qwen3 nor"),
        ("two.safetensors", r"holds 2 text encoders \(clip_l, t5xxl\)"),
        ("none.safetensors", "does not exist"),
    ):
        with pytest.raises(ValueError, match=message):
            convert_model(folder / "model", out, text_encoder=tmp_path / file)
    with pytest.raises(BundleError, match="gives 128 features and the model needs 48"):
        convert_model(folder / "model", out, text_encoder=NANO)
    with pytest.raises(ValueError, match="not a FLUX\\.2 autoencoder"):
        convert_model(folder / "model", out, vae=tmp_path / "other.safetensors")
    assert not out.exists()
    assert not list(tmp_path.glob("*.part"))


def test_a_text_encoder_is_copied_tensor_by_tensor(small):
    """Of all tensors that were read, no more than two are alive when the next one is written."""
    folder, _ = small
    alive: weakref.WeakSet[torch.Tensor] = weakref.WeakSet()
    most: list[int] = []
    part = text_encoder_part(folder / "qwen", read_header(folder / "model").architecture)
    for _name, tensor in part.tensors():
        alive.add(tensor)
        most.append(len(alive))
    assert len(most) == len(part.slots) > 300
    assert max(most) <= 2
