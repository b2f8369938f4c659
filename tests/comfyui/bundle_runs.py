"""Run by ComfyUI's Python: Load MF Model on files and folders that hold more than the transformer, as JSON.

Usage: bundle_runs.py PACK_ROOT TEMPORARY_FOLDER
"""

import json
import shutil
import sys
from pathlib import Path

from pack_loading import load_pack

HIDDEN = 64
PROMPT = "a red sphere on a wooden floor"


def main(root: Path, folder: Path) -> None:
    load_pack(root)
    import folder_paths

    folder_paths.add_model_folder_path("diffusion_models", str(folder))
    results = {"forms": nano_in_every_form(root, folder)}
    small = small_transformer(folder / "small")
    results["qwen"] = qwen_inside(small, folder)
    results["vae"] = autoencoder_inside(small, folder)
    results["gguf"] = gguf_file(small, folder)
    print(json.dumps(results))


def nano_in_every_form(root, folder):
    """Differences in picture and depth from the built-in model, of its weights in float32; None without them."""
    import torch
    from pack_under_test.mforce_core.conversion.convert import convert_model
    from pack_under_test.mforce_core.weights.checkpoint import load_model, save_model
    from pack_under_test.nodes.empty_latent import MFEmptyLatent
    from pack_under_test.nodes.host.model_files import checkpoint_names
    from pack_under_test.nodes.load_model import NANO, MFLoadModel
    from pack_under_test.nodes.sampler import MFSampler

    source = root / "models" / "nano"
    if not (source / "model.safetensors").is_file():
        return None
    plain = folder / "copy"
    shutil.copytree(source, plain)
    # Its own file may hold 8 bits, which Load MF Model turns into floats for the built-in model alone.
    save_model(load_model(source, dtype=torch.float32), plain, dtype=torch.float32, image_size=(128, 128))
    convert_model(plain, folder / "bundle.safetensors", to="fp32", bundle=True)
    listed = checkpoint_names()
    found = {}
    for name in (NANO, "bundle.safetensors", "copy"):
        model, clip, vae = MFLoadModel.execute(name).result
        texts = [clip.encode_from_tokens_scheduled(clip.tokenize(prompt)) for prompt in (PROMPT, "")]
        latent = MFEmptyLatent.execute(64, 64).result[0]
        rgb, depth, _ = MFSampler.execute(
            model=model,
            positive=texts[0],
            negative=texts[1],
            latent=latent,
            seed=3,
            mode="joint",
            steps=3,
            cfg=4.0,
            tilt=5.0,
            refine_depth=False,
        ).result
        colors = model.model.latent_format.latent_rgb_factors
        found[name] = (vae.decode(rgb["samples"]), depth["samples"], torch.tensor(colors))
    wanted = found.pop(NANO)
    return {
        "listed": [name in listed for name in found],
        **{
            name: [float((a - b).abs().max()) for a, b in zip(parts, wanted, strict=True)]
            for name, parts in found.items()
        },
    }


def small_transformer(folder):
    """A random model for the text features of a Qwen3 of HIDDEN features."""
    import torch
    from pack_under_test.mforce_core.model.config import Architecture
    from pack_under_test.mforce_core.model.transformer import ModalityForcingTransformer
    from pack_under_test.mforce_core.weights.checkpoint import save_model

    torch.manual_seed(0)
    transformer = ModalityForcingTransformer(
        Architecture(
            context_in_dim=3 * HIDDEN,
            hidden_size=32,
            num_heads=2,
            depth_double=1,
            depth_single=1,
            depth_decoder_num_layers=1,
            axes_dim=(4, 4, 4, 4),
        )
    )
    for parameter in transformer.parameters():
        torch.nn.init.normal_(parameter, 0, 0.05)
    save_model(transformer, folder, dtype=torch.float32)
    return folder


def qwen_inside(small, folder):
    """Features of a random Qwen3 in a one-file checkpoint against the same one in transformers.

    Core recognizes Qwen3 by its full width and builds it at full size; here its settings are those of a small one, and
    the rest of its way from tensors to features is taken as it is.
    """
    import comfy.sd
    import comfy.text_encoders.llama as llama
    import torch
    import transformers
    from pack_under_test.mforce_core.conversion.convert import convert_model
    from pack_under_test.nodes.load_model import MFLoadModel

    sizes = {
        "hidden_size": HIDDEN,
        "intermediate_size": 96,
        "num_hidden_layers": 28,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
    }
    torch.manual_seed(1)
    config = transformers.Qwen3Config(
        vocab_size=151936, head_dim=128, rope_theta=1e6, tie_word_embeddings=True, **sizes
    )
    qwen = transformers.Qwen3ForCausalLM(config).eval()
    for parameter in qwen.parameters():  # fresh ones are so small that every layer does next to nothing
        if parameter.ndim == 2:
            torch.nn.init.normal_(parameter, 0, 0.08)
    qwen.save_pretrained(folder / "qwen")
    convert_model(small, folder / "with_qwen.safetensors", to="fp32", text_encoder=folder / "qwen")

    plain, detect = llama.Qwen3_4BConfig, comfy.sd.detect_te_model
    llama.Qwen3_4BConfig = lambda **options: plain(**sizes | options)
    comfy.sd.detect_te_model = lambda tensors: (
        comfy.sd.TEModel.QWEN3_4B if "model.layers.27.self_attn.q_norm.weight" in tensors else detect(tensors)
    )
    try:
        _, clip, _ = MFLoadModel.execute("with_qwen.safetensors").result
        tokens = clip.tokenize(PROMPT)
        found = clip.encode_from_tokens_scheduled(tokens)[0][0]
    finally:
        llama.Qwen3_4BConfig, comfy.sd.detect_te_model = plain, detect
    (row,) = next(iter(tokens.values()))
    ids = torch.tensor([[token for token, *_ in row]])
    mask = (torch.arange(ids.shape[1]) < int((ids != 151643).sum()))[None].long()
    with torch.no_grad():
        states = qwen(input_ids=ids, attention_mask=mask, output_hidden_states=True).hidden_states
    wanted = torch.cat([states[layer] for layer in (9, 18, 27)], -1)
    return {"shape": list(found.shape), "error": float((found - wanted).norm() / wanted.norm())}


def autoencoder_inside(small, folder):
    """A FLUX.2 autoencoder in a one-file checkpoint against the same one in core's own loader."""
    import comfy.sd
    import comfy.utils
    import torch
    from pack_under_test.mforce_core.conversion.convert import convert_model
    from pack_under_test.mforce_core.encoders.autoencoder import Autoencoder, Sizes
    from pack_under_test.nodes.load_model import MFLoadModel
    from safetensors.torch import load_file, save_file

    torch.manual_seed(4)
    widths = (128, 256, 512, 512)
    state = {name: t.bfloat16() for name, t in Autoencoder(Sizes(32, widths, 2, widths, 3)).state_dict().items()}
    state |= {"bn.running_mean": torch.randn(128), "bn.running_var": torch.rand(128) + 0.5}
    own = folder / "flux2-vae.safetensors"
    save_file(state, own)
    convert_model(small, folder / "vae_inside.safetensors", to="fp32", vae=own)
    renamed = {f"first_stage_model.{name}": tensor for name, tensor in state.items()}
    save_file(load_file(small / "model.safetensors") | renamed, folder / "first_stage.safetensors")
    shutil.copy(small / "config.json", folder / "config.json")
    latent = torch.randn(1, 128, 2, 2)
    wanted = comfy.sd.VAE(sd=comfy.utils.load_torch_file(str(own))).decode(latent)
    results = {"spread": float(wanted.std())}
    for name in ("vae_inside.safetensors", "first_stage.safetensors"):
        vae = MFLoadModel.execute(name).result[2]
        results[name] = float((vae.decode(latent) - wanted).abs().max())
    return results


def gguf_file(small, folder):
    """A GGUF file, of plain tensors, through the node; None without the gguf package."""
    try:
        import gguf
    except ModuleNotFoundError:
        return None
    from pack_under_test.nodes.host.model_files import checkpoint_names
    from pack_under_test.nodes.load_model import MFLoadModel
    from safetensors.torch import load_file

    tensors = load_file(small / "model.safetensors")
    writer = gguf.GGUFWriter(folder / "small.gguf", "flux")
    for name, tensor in tensors.items():
        writer.add_tensor(name.removeprefix("dit."), tensor.numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    shutil.copy(small / "config.json", folder / "config.json")
    model = MFLoadModel.execute("small.gguf").result[0].model.diffusion_model.state_dict()
    different = [name for name, tensor in model.items() if not tensor.float().equal(tensors[f"dit.{name}"])]
    return {"listed": "small.gguf" in checkpoint_names(), "different": different, "tensors": len(model)}


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
