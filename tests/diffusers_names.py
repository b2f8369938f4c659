"""The names of diffusers for the base half of a transformer."""

import re

import torch


def as_diffusers(weights: dict) -> dict:
    """The base half of the weights under diffusers' names, written from its documentation for machines without it."""
    names = {
        "img_in": "x_embedder",
        "txt_in": "context_embedder",
        "time_in.in_layer": "time_guidance_embed.timestep_embedder.linear_1",
        "time_in.out_layer": "time_guidance_embed.timestep_embedder.linear_2",
        "double_stream_modulation_img.lin": "double_stream_modulation_img.linear",
        "double_stream_modulation_txt.lin": "double_stream_modulation_txt.linear",
        "single_stream_modulation.lin": "single_stream_modulation.linear",
        "final_layer.linear": "proj_out",
        "final_layer.adaLN_modulation.1": "norm_out.linear",
        "img_attn.norm.query_norm.scale": "attn.norm_q.weight",
        "img_attn.norm.key_norm.scale": "attn.norm_k.weight",
        "txt_attn.norm.query_norm.scale": "attn.norm_added_q.weight",
        "txt_attn.norm.key_norm.scale": "attn.norm_added_k.weight",
        "img_attn.proj": "attn.to_out.0",
        "txt_attn.proj": "attn.to_add_out",
        "img_mlp.0": "ff.linear_in",
        "img_mlp.2": "ff.linear_out",
        "txt_mlp.0": "ff_context.linear_in",
        "txt_mlp.2": "ff_context.linear_out",
        "linear1": "attn.to_qkv_mlp_proj",
        "linear2": "attn.to_out",
        "norm.query_norm.scale": "attn.norm_q.weight",
        "norm.key_norm.scale": "attn.norm_k.weight",
        "double_blocks": "transformer_blocks",
        "single_blocks": "single_transformer_blocks",
    }
    found = {}
    for name, tensor in weights.items():
        if name.startswith("final_layer.ada"):
            tensor = torch.cat(tensor.chunk(2)[::-1])
        parts = {name: tensor}
        for ours, theirs in (("img_attn.qkv", ("to_q", "to_k", "to_v")),
                             ("txt_attn.qkv", ("add_q_proj", "add_k_proj", "add_v_proj"))):  # fmt: skip
            if ours in name:
                parts = {
                    name.replace(ours, f"attn.{key}"): part.contiguous()
                    for key, part in zip(theirs, tensor.chunk(3), strict=True)
                }
        for own, part in parts.items():
            for ours, theirs in names.items():
                own = re.sub(rf"(^|\.){re.escape(ours)}(?=\.|$)", rf"\g<1>{theirs}", own)
            found[own] = part
    return found
