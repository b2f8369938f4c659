"""Run by ComfyUI's Python: every form of checkpoint through Load MF Model's loader, and partial loading, as JSON.

Usage: loading_runs.py PACK_ROOT CHECKPOINT TEMPORARY_FOLDER
"""

import json
import sys
from pathlib import Path

from pack_loading import load_pack

GRID, TOKENS = (6, 8), 16


def main(root: Path, checkpoint: Path, folder: Path) -> None:
    load_pack(root)
    import torch
    from pack_under_test.mforce_core.conversion.convert import convert_model
    from pack_under_test.mforce_core.weights.checkpoint import load_model
    from pack_under_test.nodes.host.model_loader import load_joint_model

    files = {to: folder / f"{to}.safetensors" for to in ("bf16", "fp32", "fp8", "int8")}
    for to, file in files.items():
        convert_model(checkpoint, file, to=to)
    files |= older_forms(files["fp8"], folder)
    inputs = make_inputs(load_joint_model(str(checkpoint)).model.architecture)

    def forward(model):
        streams, times, text = inputs
        return model.patch_model().diffusion_model(streams, times, text.to(model.model.get_dtype_inference()))

    def error(found, wanted):
        return [float((a - b).norm() / b.norm()) for a, b in zip(found, wanted, strict=True)]

    wanted = forward(load_joint_model(str(checkpoint)))
    results = {}
    for name, file in files.items():
        model = load_joint_model(str(file))
        alone = core_forward(load_model(file, dtype=torch.float32), inputs)
        results[name] = {
            "error": error(forward(model), wanted),
            "against_core": error(forward(model), alone),
            "bytes": model.model_size(),
            "quantized": type(model.model.diffusion_model.single_blocks[0].linear1.weight).__name__,
            "depth_head": str(model.model.diffusion_model.depth_final_layer.linear.weight.dtype),
        }
    for name in ("fp8", "int8"):
        model = load_joint_model(str(files[name]), dequantized=True)
        alone = core_forward(load_model(files[name], dtype=torch.float32), inputs)
        results[f"dequantized {name}"] = {
            "against_core": error(forward(model), alone),
            "bytes": model.model_size(),
            "quantized": type(model.model.diffusion_model.single_blocks[0].linear1.weight).__name__,
        }
    for dtype in (torch.float8_e4m3fn, torch.float8_e5m2):
        model = load_joint_model(str(files["bf16"]), dtype)
        results[str(dtype)] = {"error": error(forward(model), wanted), "bytes": model.model_size()}
    results["fast"] = multiplies_in_8_bits(files["fp8"])
    results["kitchen"] = compare_with_kitchen()
    results["partial"] = {name: partial_loading(files[name]) for name in ("fp32", "fp8", "int8")}
    results["turns"] = take_turns(files["fp8"])
    results["missing_parts"] = missing_parts(folder)
    results["autoencoder"] = one_file_autoencoder(folder)
    results["bundle"] = bundled_parts(root, folder)
    print(json.dumps(results))


def make_inputs(architecture):
    import torch

    torch.manual_seed(0)
    streams = [torch.randn(1, channels, *GRID) for channels in (architecture.in_channels, architecture.depth_channels)]
    text = torch.randn(1, TOKENS, architecture.context_in_dim)
    return streams, [torch.tensor([0.7]), torch.tensor([0.9])], text


def core_forward(model, inputs):
    streams, times, text = inputs
    out = model(*(stream.flatten(2).mT for stream in streams), text, *times, GRID)
    return [tokens.mT.unflatten(2, GRID) for tokens in out]


def older_forms(file, folder):
    """The scaled fp8 file as it was stored before: formats in the metadata, or ``scale_weight`` and one marker."""
    import torch
    from pack_under_test.mforce_core.weights.quantization import read_marker
    from safetensors import safe_open
    from safetensors.torch import load_file, save_file

    tensors = load_file(file)
    with safe_open(file, "pt") as handle:
        metadata = handle.metadata()
    formats = {n.removesuffix(".comfy_quant"): read_marker(t) for n, t in tensors.items() if n.endswith("comfy_quant")}
    plain = {name: tensor for name, tensor in tensors.items() if not name.endswith("comfy_quant")}
    listed, legacy = folder / "listed.safetensors", folder / "legacy.safetensors"
    save_file(plain, listed, metadata | {"_quantization_metadata": json.dumps({"layers": formats})})
    prefix = "model.diffusion_model."
    renamed = {prefix + name.replace("weight_scale", "scale_weight"): tensor for name, tensor in plain.items()}
    save_file(renamed | {prefix + "scaled_fp8": torch.zeros(2, dtype=torch.float8_e4m3fn)}, legacy, metadata)
    unmarked = {scale: folder / f"unmarked_{scale}.safetensors" for scale in ("weight_scale", "scale_weight")}
    for scale, path in unmarked.items():
        save_file({name.replace("weight_scale", scale): tensor for name, tensor in plain.items()}, path, metadata)
    return {"listed": listed, "legacy": legacy, **{f"unmarked {scale}": path for scale, path in unmarked.items()}}


def multiplies_in_8_bits(file):
    """Whether the scaled fp8 layers multiply in full precision, by default and when asked for fast fp8."""
    import comfy.model_management
    from pack_under_test.nodes.host.model_loader import load_joint_model

    known = comfy.model_management.supports_fp8_compute
    comfy.model_management.supports_fp8_compute = lambda device=None: True
    try:
        models = [load_joint_model(str(file), None, fast) for fast in (False, True)]
    finally:
        comfy.model_management.supports_fp8_compute = known
    return [not model.model.diffusion_model.single_blocks[0].linear1._full_precision_mm for model in models]


def compare_with_kitchen():
    """Largest differences between the stored values and scales of our quantization and comfy-kitchen's."""
    import torch
    from comfy.quant_ops import QuantizedTensor
    from pack_under_test.mforce_core.weights.quantization import quantize_fp8, quantize_int8

    torch.manual_seed(1)
    results = {}
    for width in (512, 192):
        weight = torch.randn(96, width) * torch.rand(96, 1)
        group = 256 if width == 512 else 64
        ours = {"fp8": quantize_fp8(weight), "int8": quantize_int8(weight)}
        theirs = {
            "fp8": QuantizedTensor.from_float(weight, "TensorCoreFP8E4M3Layout", scale="recalculate"),
            "int8": QuantizedTensor.from_float(
                weight, "TensorWiseINT8Layout", per_channel=True, convrot=True, convrot_groupsize=group
            ),
        }
        for name, other in theirs.items():
            values, scale, _ = ours[name]
            different = values.view(torch.int8) != other._qdata.view(torch.int8)
            results[f"{name}_{width}"] = {
                "different": int(different.sum()),
                "scale": float(((scale - other._params.scale) / other._params.scale).abs().max()),
            }
    return results


def make_lora(model):
    """An ordinary LoRA on a block's matrices, and the model with it."""
    import comfy.sd
    import torch

    torch.manual_seed(2)
    weights = {}
    for layer in ("double_blocks.0.img_attn.qkv", "single_blocks.0.linear1", "single_blocks.1.linear2"):
        linear = model.model.diffusion_model.get_submodule(layer)
        weights[f"diffusion_model.{layer}.lora_A.weight"] = 0.1 * torch.randn(4, linear.weight.shape[1])
        weights[f"diffusion_model.{layer}.lora_B.weight"] = 0.1 * torch.randn(linear.weight.shape[0], 4)
    return comfy.sd.load_lora_for_models(model, None, weights, 1.0, 0.0)[0]


def partial_loading(file):
    """A whole sampling run with all weights loaded against the same with a part of them, without and with a LoRA."""
    import comfy.model_management
    import comfy.sample
    import torch
    from comfy.nested_tensor import NestedTensor
    from pack_under_test.nodes.host.joint_latent import joint
    from pack_under_test.nodes.host.model_loader import load_joint_model

    def sample(share, lora):
        model = load_joint_model(str(file))
        model = make_lora(model) if lora else model
        architecture, needed = model.model.architecture, []

        def load(models, memory_required=0, **_):
            needed.append(memory_required)
            for one in models:
                one.partially_load(one.load_device, share * one.model_size())

        whole, comfy.model_management.load_models_gpu = comfy.model_management.load_models_gpu, load
        torch.manual_seed(3)
        channels = (architecture.in_channels, architecture.depth_channels)
        noise = NestedTensor([torch.randn(1, c, *GRID) for c in channels])
        text = [[torch.randn(1, TOKENS, architecture.context_in_dim), {}]]
        latent = joint(*(torch.zeros_like(stream) for stream in noise.unbind()))
        try:
            out = comfy.sample.sample(
                model, noise, 2, 1.0, "euler", "simple", text, text, latent["samples"], seed=0
            ).unbind()
        finally:
            comfy.model_management.load_models_gpu = whole
        return out, {
            "loaded": model.loaded_size() / model.model_size(),
            "patches": model.lowvram_patch_counter(),
            "needed": needed[0],
        }

    results = {}
    for lora in (False, True):
        full, _ = sample(2.0, lora)
        part, facts = sample(0.1 if lora else 0.6, lora)  # the layers of a LoRA are the last to be offloaded
        difference = max(float((a - b).norm() / b.norm()) for a, b in zip(part, full, strict=True))
        results["lora" if lora else "plain"] = facts | {"difference": difference}
    moved = sample(2.0, True)[0][0] - sample(2.0, False)[0][0]
    results["effect_of_lora"] = float(moved.norm())
    return results


def take_turns(file):
    """Bytes of the text encoder that are loaded while the transformer is, by the room on a made-up card."""
    import comfy.model_management as management
    import torch
    from comfy.patcher_extension import CallbacksMP
    from pack_under_test.nodes.host.model_loader import load_joint_model
    from pack_under_test.nodes.host.nano_parts import load_clip

    # Not the device "cpu" by name, where core frees nothing; but one all the same.
    card = torch.device("cpu", 0)
    free = management.get_free_memory
    results = {}
    try:
        for name, room in (("ample", 64 << 30), ("tight", 0)):
            clip, model = load_clip(), load_joint_model(str(file))
            clip.patcher.load_device = model.load_device = card
            for device in (torch.device("cpu"), card):
                management.get_free_memory = free
                management.free_memory(1e30, device)
            size = room + clip.patcher.model_size() + model.model_size()

            def left(device=None, torch_free_too=False, size=size):
                used = sum(loaded.model_loaded_memory() for loaded in management.current_loaded_models)
                return (size - used, 0) if torch_free_too else size - used

            management.get_free_memory = left
            clip.encode_from_tokens_scheduled(clip.tokenize("a red sphere"))
            before, during = clip.patcher.loaded_size(), []
            model.add_callback(CallbacksMP.ON_LOAD, lambda *_, c=clip, d=during: d.append(c.patcher.loaded_size()))
            management.load_models_gpu([model], memory_required=model.memory_required([1, 1, 1000]))
            results[name] = {"before": before, "during": during[-1], "transformer": model.loaded_size()}
    finally:
        management.get_free_memory = free
    return results


def bundled_parts(root, folder):
    """nano as one file with its parts, through Load MF Model, against nano itself; None without its weights."""
    import torch
    from pack_under_test.mforce_core.conversion.convert import convert_model
    from pack_under_test.nodes.load_model import NANO, MFLoadModel

    source = root / "models" / "nano"
    if not (source / "model.safetensors").is_file():
        return None
    convert_model(source, folder / "nano-bundle.safetensors", bundle=True)
    latent = torch.randn(1, 128, 2, 2, generator=torch.Generator().manual_seed(0))
    found = []
    for name in (NANO, "nano-bundle.safetensors"):
        _, clip, vae = MFLoadModel.execute(name).result
        text = clip.encode_from_tokens_scheduled(clip.tokenize("a red sphere"))[0][0]
        found.append((text, vae.decode(latent)))
    return [bool(torch.equal(a, b)) for a, b in zip(*found, strict=True)]


def missing_parts(folder):
    """What stock nodes say when they are given the CLIP or VAE of a checkpoint that has none."""
    import copy

    import folder_paths
    import torch
    from pack_under_test.nodes.load_model import MFLoadModel

    import nodes

    folder_paths.add_model_folder_path("diffusion_models", str(folder))
    _, clip, vae = MFLoadModel.execute("int8.safetensors").result
    latent = {"samples": torch.zeros(1, 128, 2, 2)}
    uses = {
        "CLIPTextEncode": lambda: nodes.CLIPTextEncode().encode(clip, "a red sphere"),
        "VAEDecode": lambda: nodes.VAEDecode().decode(vae, latent),
        "VAEEncode": lambda: nodes.VAEEncode().encode(vae, torch.zeros(1, 32, 32, 3)),
        "copied": lambda: nodes.CLIPTextEncode().encode(copy.deepcopy(clip), ""),
    }
    messages = {}
    for name, use in uses.items():
        try:
            use()
        except ValueError as problem:
            messages[name] = str(problem)
    return messages


def one_file_autoencoder(folder):
    """A release's two files, at the one size that core opens, as one file in core's VAE loader and in our own."""
    import comfy.sd
    import comfy.utils
    import torch
    from pack_under_test.mforce_core.conversion.convert import convert_autoencoder
    from pack_under_test.mforce_core.encoders.autoencoder import Autoencoder, Sizes
    from pack_under_test.mforce_core.encoders.autoencoder_files import load_autoencoder
    from safetensors.torch import save_file

    torch.manual_seed(4)
    widths = (128, 256, 512, 512)
    state = {name: t.bfloat16() for name, t in Autoencoder(Sizes(32, widths, 2, widths, 3)).state_dict().items()}
    statistics = {"bn.running_mean": torch.randn(128), "bn.running_var": torch.rand(128) + 0.5}
    for half in ("encoder", "decoder"):
        own = {name.removeprefix(half + "."): t for name, t in state.items() if name.startswith(half + ".")}
        save_file(own | statistics | {"bn.num_batches_tracked": torch.tensor(7)}, folder / f"ae_{half}.safetensors")
    one_file = folder / "vae.safetensors"
    convert_autoencoder(folder / "ae_encoder.safetensors", one_file)

    tensors, metadata = comfy.utils.load_torch_file(str(one_file), return_metadata=True)
    vae, own = comfy.sd.VAE(sd=tensors, metadata=metadata), load_autoencoder(one_file, dtype=torch.float32)
    image = torch.rand(1, 32, 32, 3)
    latent = own.encode(2 * image.movedim(-1, 1) - 1)
    decoded = (own.decode(latent).movedim(1, -1) / 2 + 0.5).clamp(0, 1)
    return {
        "encode": float((vae.encode(image) - latent).abs().max()),
        "decode": float((vae.decode(latent) - decoded).abs().max()),
        "spread": float(decoded.std()),
    }


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
