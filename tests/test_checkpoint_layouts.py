"""Every form in which a transformer is stored gives the same model; what cannot be opened is named for what it is."""

import json
import re
import shutil
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from diffusers_names import as_diffusers
from mforce.mforce_core import load_model
from mforce.mforce_core.conversion.convert import convert_model
from mforce.mforce_core.model.config import Architecture, ConfigError
from mforce.mforce_core.weights.header import read_header
from mforce.mforce_core.weights.tensor_files import CheckpointError

GOLDEN = Path(__file__).parent / "golden" / "v2"
CASES = Path(__file__).parent / "cases"


@pytest.fixture(scope="module")
def reference():
    return load_model(GOLDEN).state_dict()


@pytest.fixture
def weights() -> dict[str, torch.Tensor]:
    """By this project's names, without a prefix."""
    return {name.removeprefix("dit."): tensor for name, tensor in load_file(GOLDEN / "model.safetensors").items()}


def assert_same(path: Path, reference: dict) -> None:
    found = load_model(path, dtype=torch.float32).state_dict()
    assert found.keys() == reference.keys()
    for name, tensor in reference.items():
        assert torch.equal(found[name], tensor), name


@pytest.mark.parametrize(
    "prefix",
    ["transformer.", "module.", "_orig_mod.", "model.", "net.", "base_model.model.", "module._orig_mod.",
     "model.diffusion_model.", "something.else."],
)  # fmt: skip
def test_prefixes(prefix, weights, reference, tmp_path):
    save_file({prefix + name: tensor for name, tensor in weights.items()}, tmp_path / "m.safetensors")
    assert_same(tmp_path / "m.safetensors", reference)
    assert read_header(tmp_path / "m.safetensors").prefix == prefix


def renamed(weights: dict, pattern: str, new: str) -> dict:
    return {re.sub(pattern, new, name): tensor for name, tensor in weights.items()}


@pytest.mark.parametrize(
    ("pattern", "new"),
    [
        (r"(query_norm|key_norm)\.scale", r"\1.weight"),
        (r"^(double_blocks\.\d+)\.", r"\1._orig_mod."),
        (r"^(single_blocks\.\d+)\.", r"\1._fsdp_wrapped_module._checkpoint_wrapped_module."),
    ],
)
def test_names_inside(pattern, new, weights, reference, tmp_path):
    stored = renamed(weights, pattern, new)
    assert stored.keys() != weights.keys()
    save_file(stored, tmp_path / "m.safetensors")
    assert_same(tmp_path / "m.safetensors", reference)
    out = tmp_path / "out.safetensors"
    convert_model(tmp_path / "m.safetensors", out, to="fp32")
    assert_same(out, reference)


def test_other_parts_beside_bare_names(weights, reference, tmp_path):
    others = {"vae.encoder.conv_in.weight": torch.zeros(1), "text_encoders.qwen3_8b.embed.weight": torch.zeros(2)}
    save_file({**weights, **others}, tmp_path / "m.safetensors")
    assert_same(tmp_path / "m.safetensors", reference)
    assert set(read_header(tmp_path / "m.safetensors").others) == set(others)


def test_two_conversions_in_one_folder_are_refused(weights, tmp_path):
    save_file(weights, tmp_path / "a-fp8.safetensors")
    save_file({name: tensor + 1 for name, tensor in weights.items()}, tmp_path / "mf-bf16.safetensors")
    with pytest.raises(CheckpointError, match=r"the tensor \S+ is in two files, a-fp8\.safetensors and mf-bf16\.safet"):
        load_model(tmp_path)
    save_file({"dit." + name: tensor for name, tensor in weights.items()}, tmp_path / "mf-bf16.safetensors")
    with pytest.raises(CheckpointError, match=r"holds 2 transformers, under the prefixes '' and 'dit\.'"):
        load_model(tmp_path)


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2])
@pytest.mark.parametrize("scale_name", ["weight_scale", "scale_weight"])
def test_scaled_fp8_without_a_marker(dtype, scale_name, weights, reference, tmp_path):
    stored = dict(weights)
    for name in [name for name in weights if name.endswith("linear1.weight")]:
        scale = weights[name].abs().max() / 100
        stored[name] = (weights[name] / scale).to(dtype)
        stored[f"{name.removesuffix('.weight')}.{scale_name}"] = scale
    save_file(stored, tmp_path / "m.safetensors")
    assert len(read_header(tmp_path / "m.safetensors").quantized) == 3
    found = load_model(tmp_path / "m.safetensors", dtype=torch.float32).state_dict()
    name = "single_blocks.0.linear1.weight"
    error = (found[name] - reference[name]).abs().max() / reference[name].abs().max()
    assert 0 < error < (0.05 if dtype == torch.float8_e4m3fn else 0.1)


def diffusers_model(weights):
    """diffusers' own class with the base half of the weights, by diffusers' own conversion."""
    diffusers = pytest.importorskip("diffusers")
    from diffusers.loaders.single_file_utils import convert_flux2_transformer_checkpoint_to_diffusers as convert

    sizes = Architecture.from_dict(json.loads((GOLDEN / "config.json").read_text())["architecture"])
    model = diffusers.Flux2Transformer2DModel(
        in_channels=sizes.in_channels,
        num_layers=sizes.depth_double,
        num_single_layers=sizes.depth_single,
        attention_head_dim=sizes.head_dim,
        num_attention_heads=sizes.num_heads,
        joint_attention_dim=sizes.context_in_dim,
        mlp_ratio=sizes.mlp_ratio,
        axes_dims_rope=sizes.axes_dim,
        rope_theta=int(sizes.theta),
        guidance_embeds=sizes.use_guidance_embed,
    )
    model.load_state_dict(convert(dict(weights)))
    return model


def base_of(weights: dict) -> dict:
    depth_only = ("depth", "cross_alpha", "time_in_rgb_to_depth")
    return {name: tensor for name, tensor in weights.items() if not any(key in name for key in depth_only)}


@pytest.fixture
def base(weights, tmp_path):
    """The base half of the weights, and it opened from our own names."""
    base = base_of(weights)
    save_file(base, tmp_path / "base.safetensors")
    return base, load_model(tmp_path / "base.safetensors").state_dict()


def test_the_naming_of_diffusers(base, tmp_path):
    weights, reference = base
    save_file(as_diffusers(weights), tmp_path / "m.safetensors")
    assert_same(tmp_path / "m.safetensors", reference)
    convert_model(tmp_path / "m.safetensors", tmp_path / "out.safetensors", to="fp32")
    assert_same(tmp_path / "out.safetensors", reference)


@pytest.mark.parametrize("shard", ["10GB", "60KB"])
def test_a_folder_that_diffusers_saved(shard, base, tmp_path):
    weights, reference = base
    model = diffusers_model(weights)
    assert as_diffusers(weights).keys() == model.state_dict().keys()
    model.save_pretrained(tmp_path / "pipeline" / "transformer", max_shard_size=shard)
    (tmp_path / "pipeline" / "model_index.json").write_text("{}")
    count = len(list((tmp_path / "pipeline" / "transformer").glob("*.safetensors")))
    assert (count == 1) == (shard == "10GB")
    assert_same(tmp_path / "pipeline", reference)
    assert_same(tmp_path / "pipeline" / "transformer", reference)


def sharded(weights: dict, folder: Path) -> list[Path]:
    """Three shards with an index, q, k and v of a block in different ones."""
    files = [folder / f"diffusion_pytorch_model-0000{number}-of-00003.safetensors" for number in (1, 2, 3)]
    names = sorted(weights)
    index = {}
    for number, file in enumerate(files):
        save_file({name: weights[name] for name in names[number::3]}, file)
        index |= dict.fromkeys(names[number::3], file.name)
    text = json.dumps({"metadata": {}, "weight_map": index})
    (folder / "diffusion_pytorch_model.safetensors.index.json").write_text(text)
    return files


def test_shards_with_an_index(base, tmp_path):
    weights, reference = base
    folder = tmp_path / "model" / "transformer"
    folder.mkdir(parents=True)
    files = sharded(as_diffusers(weights), folder)
    for path in (folder, folder.parent, files[1]):
        assert_same(path, reference)
    files[1].unlink()
    with pytest.raises(CheckpointError, match=r"lacks the shard diffusion_pytorch_model-00002-of-00003\.safetensors"):
        load_model(folder)
    with pytest.raises(CheckpointError, match="2 of the 3 shards"):
        load_model(files[0])


@pytest.mark.parametrize(
    ("index", "message"),
    [
        ({"weight_map": {"a": "../base.safetensors"}}, "not in its folder"),
        ({"weight_map": {"a": "/etc/passwd"}}, "not in its folder"),
        ({"weight_map": {"a": 3}}, "does not list|not in its folder"),
        ({"weight_map": {}}, "lists no shard"),
        ({}, "does not list the shards"),
        ([], "does not list the shards"),
    ],
)
def test_an_index_cannot_lead_out_of_its_folder(index, message, tmp_path):
    (tmp_path / "x.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(CheckpointError, match=message):
        load_model(tmp_path)


def test_gguf(base, tmp_path):
    gguf = pytest.importorskip("gguf")
    weights, reference = base
    writer = gguf.GGUFWriter(tmp_path / "m.gguf", "flux")
    exact = set()
    for name, tensor in weights.items():
        values = tensor.float().numpy()
        if "linear1" in name:
            kind = gguf.GGMLQuantizationType.Q8_0
            writer.add_tensor(name, gguf.quants.quantize(values, kind), raw_dtype=kind)
        else:
            writer.add_tensor(name, values)
            exact.add(name)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    found = load_model(tmp_path / "m.gguf", dtype=torch.float32).state_dict()
    assert found.keys() == reference.keys()
    for name, tensor in reference.items():
        if name in exact:
            assert torch.equal(found[name], tensor)
        else:
            assert 0 < (found[name] - tensor).abs().max() < 0.02 * tensor.abs().max()
    assert "Q8_0 2" in read_header(tmp_path / "m.gguf").metadata["gguf"]
    convert_model(tmp_path / "m.gguf", tmp_path / "out.safetensors", to="fp32")
    assert load_model(tmp_path / "out.safetensors").state_dict().keys() == reference.keys()
    (tmp_path / "cut.gguf").write_bytes((tmp_path / "m.gguf").read_bytes()[:3000])
    with pytest.raises(CheckpointError, match="not a whole GGUF file"):
        load_model(tmp_path / "cut.gguf")


ZERO = torch.zeros(2, 2)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["img_in.weight", "single_blocks.0.linear1.qweight", "single_blocks.0.linear1.wscales"], "Nunchaku"),
        (["transformer_blocks.0.qkv_proj.qweight", "transformer_blocks.0.qkv_proj.smooth_factor"], "Nunchaku"),
        (["img_in.weight", "single_blocks.0.linear1.qweight", "single_blocks.0.linear1.qzeros"], "GPTQ or AWQ"),
        (["img_in.weight", "single_blocks.0.linear1.weight.absmax"], "bitsandbytes"),
        (["transformer.single_blocks.0.linear1.lora_A.weight"], "a LoRA"),
        (["lora_unet_single_blocks_0_linear1.lora_up.weight"], "a LoRA"),
        (["img_in.weight", "vector_in.in_layer.weight"], r"FLUX\.1"),
        (["img_in.weight", "txt_norm.weight"], "Qwen-Image"),
        (["decoder.conv_in.weight"], "an autoencoder"),
        (["model.layers.0.self_attn.q_proj.weight"], "a language model"),
        (["conv.weight"], "no tensor is called 'img_in.weight'"),
    ],
)
def test_other_files_are_named(names, message, tmp_path):
    save_file({name: ZERO.clone() for name in names}, tmp_path / "m.safetensors")
    with pytest.raises(CheckpointError, match=message) as caught:
        load_model(tmp_path / "m.safetensors")
    assert "\n" not in str(caught.value)


def test_files_of_the_reports_are_named():
    with pytest.raises(CheckpointError, match=r"Git LFS pointer.*git lfs pull"):
        load_model(CASES / "16_messages" / "lfs_pointer")
    with pytest.raises(CheckpointError, match=r"needs the gguf package|it holds nothing"):
        load_model(CASES / "16_messages" / "model.gguf")


@pytest.mark.parametrize(
    ("name", "message"),
    [("config.json", "axes_dim must be four even numbers"), ("hangs_config.json", "depth_double must be an integer")],
)
def test_configurations_of_the_reports(name, message, tmp_path):
    shutil.copy(CASES / "23_damaged" / name, tmp_path / "config.json")
    shutil.copy(GOLDEN / "model.safetensors", tmp_path)
    start = time.perf_counter()
    with pytest.raises(ConfigError, match=message):
        load_model(tmp_path)
    assert time.perf_counter() - start < 20


SIZES = json.loads((GOLDEN / "config.json").read_text())["architecture"]
WRONG = [None, [], {}, "x", -1, 1.5, True, 10**30, float("inf"), float("nan"), [[]], "1" * 5000, 10**400]


@pytest.mark.parametrize("key", SIZES)
@pytest.mark.parametrize("number", range(len(WRONG)))
def test_every_wrong_value_has_one_sentence(key, number):
    value = WRONG[number]
    if value == SIZES[key] or (isinstance(SIZES[key], float | int) and key in ("theta", "mlp_ratio") and value == 1.5):
        pytest.skip("not wrong")
    if value is True and isinstance(SIZES[key], bool):
        pytest.skip("not wrong")
    with pytest.raises(ConfigError) as caught:
        Architecture.from_dict({**SIZES, key: value})
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300


def test_more_blocks_than_the_file_has_are_counted_before_anything_is_built(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"architecture": {**SIZES, "depth_double": 512}}))
    shutil.copy(GOLDEN / "model.safetensors", tmp_path)
    with pytest.raises(CheckpointError, match="asks for 512 double_blocks and the file has 2"):
        load_model(tmp_path)
