"""Run by ComfyUI's Python: which attention a model's options and the start flags give, results as JSON.

Usage: attention_runs.py PACK_ROOT
"""

import json
import sys
from pathlib import Path

from pack_loading import load_pack


def main(root: Path) -> None:
    load_pack(root)
    import comfy.ldm.modules.attention as core
    import torch
    from comfy.cli_args import args
    from pack_under_test.kernels import attention, use_attention
    from pack_under_test.nodes.host.attention import host_attention

    torch.manual_seed(0)
    packed = torch.randn(2, 7, 3, 4, 16)
    heads = packed.unbind(2)
    wanted = attention(*heads, backend="sdpa_math")
    calls = []

    def override(function, *arguments, **options):
        calls.append([function.__name__, sorted(options["transformer_options"])])
        return function(*arguments, **options)

    def error(options) -> float:
        buffer = torch.full((2, 7, 80), torch.nan)
        with use_attention(host=host_attention(options)):
            attention(*heads, out=buffer[..., :64])
        return float((buffer[..., :64] - wanted).norm() / wanted.norm())

    results = {"free": host_attention({}) is None}
    results["override"] = error({"optimized_attention_override": override, "sigmas": None})
    results["override_calls"] = calls.copy()
    errors = {}
    for name in ("attention_sub_quad", "attention_split", "attention_pytorch", "attention_basic"):
        core.optimized_attention = getattr(core, name)
        args.use_flash_attention = True
        errors[name] = error({})
        assert host_attention({}) is not None
    results["flags"] = errors
    # A gradient takes the pack's own way.
    heads[0].requires_grad_()
    with use_attention(host=host_attention({"optimized_attention_override": override})):
        attention(*heads).sum().backward()
    results["calls_for_a_gradient"] = len(calls) - len(results["override_calls"])
    print(json.dumps(results))


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
