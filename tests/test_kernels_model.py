"""The kernels inside the transformer: operators that PyTorch can check and compile, golden data, falling back."""

import json
import logging
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from kernel_evidence import DEVICE, needs_triton, runs
from mforce.kernels import BackEndUnavailable, Modulation, Segment, adaln, back_end, swiglu
from mforce.kernels.choice import candidates
from mforce.kernels.registry import Call, log_once
from mforce.mforce_core import load_model
from mforce.mforce_core.model.transformer import ModalityForcingTransformer
from tiny_model import TINY

GOLDEN = Path(__file__).parent / "golden"
GRID = (2, 2)
OPS = ("adaln", "attention", "gated_residual", "gated_residual_adaln", "qk_norm_rope", "swiglu")
back_ends = pytest.mark.parametrize("name", ["reference", pytest.param("triton", marks=needs_triton)])


def tiny_model() -> ModalityForcingTransformer:
    torch.manual_seed(0)
    return ModalityForcingTransformer(replace(TINY, depth_single=2)).to(DEVICE)


def tiny_inputs(batch: int = 2) -> tuple:
    generator = torch.Generator().manual_seed(1)
    tensors = [torch.randn(batch, *shape, generator=generator) for shape in ((4, 8), (4, 16), (3, 12))]
    times = [torch.rand(batch, generator=generator) for _ in range(2)]
    return *(tensor.to(DEVICE) for tensor in tensors + times), GRID


def loss_of(outputs: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    return outputs[0].sin().sum() + outputs[1].cos().sum()


def draw(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, device=DEVICE, requires_grad=True)


@needs_triton
def test_operators_are_what_pytorch_expects_of_them() -> None:
    # The package exports functions of the same names as its modules.
    from mforce.kernels.triton.operators.adaln import adaln, gated_residual, gated_residual_adaln
    from mforce.kernels.triton.operators.rope import qk_norm_rope
    from mforce.kernels.triton.operators.swiglu import swiglu

    torch.manual_seed(0)
    x, y, vectors = draw(2, 5, 8), draw(2, 5, 8), [draw(2, 8) for _ in range(6)]
    pairs, lengths = [vectors[i : i + 2] for i in (0, 2, 4)], [3, 2]
    scales = [draw(4), draw(4)]
    checks = [
        (adaln, (x, lengths, *pairs[:2])),
        (gated_residual, (x, y, lengths, pairs[0])),
        (gated_residual_adaln, (x, y, lengths, *pairs)),
        (qk_norm_rope, ([draw(1, 2, 3, 2, 4)] * 1, scales[:1], scales[1:], torch.randn(2, 2, 2).to(DEVICE))),
        (swiglu, (draw(1, 3, 8), draw(1, 3, 2))),
        (swiglu, (draw(1, 3, 8), None)),
    ]
    with runs("triton", "adaln", "gated_residual", "gated_residual_adaln", "qk_norm_rope", "swiglu"):
        for operator, arguments in checks:
            torch.library.opcheck(operator, arguments)


@needs_triton
@pytest.mark.parametrize(("dtype", "suffix", "tolerance"), [("float32", "", 1e-5), ("bfloat16", "_bf16", 3e-2)])
def test_golden_forward(dtype: str, suffix: str, tolerance: float) -> None:
    model = load_model(GOLDEN / "v2", dtype=getattr(torch, dtype), device=DEVICE)
    data = {key: value.to(DEVICE) for key, value in load_file(GOLDEN / "v2" / "forward.safetensors").items()}
    data = {key: value[:1] for key, value in data.items()}  # the interpreter is slow
    inputs = [data[key] for key in ("rgb", "depth", "text", "t_rgb", "t_depth")]
    with torch.no_grad(), back_end("triton"), runs("triton", *OPS):
        outputs = model(*inputs, (4, 6))
    for ours, key in zip(outputs, ("out_rgb", "out_depth"), strict=True):
        theirs = data[key + suffix].double()
        assert float((ours.double() - theirs).norm() / theirs.norm()) <= tolerance


@back_ends
def test_what_trains_and_what_samples_agree(name: str) -> None:
    """Buffers are written in place without autograd and never with it: same values, and the reference's gradients."""
    model, inputs = tiny_model(), tiny_inputs()
    before = [tensor.clone() for tensor in inputs[:5]]
    expected = torch.autograd.grad(loss_of(model(*inputs)), list(model.parameters()))
    with back_end(name), runs(name, *OPS):
        with torch.no_grad():
            sampled = model(*inputs)
        trained = model(*inputs)
        grads = torch.autograd.grad(loss_of(trained), list(model.parameters()))
    for ours, theirs in zip((*sampled, *grads), (*trained, *expected), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
    assert all(torch.equal(tensor, kept) for tensor, kept in zip(inputs[:5], before, strict=True))


@back_ends
def test_the_model_compiles_without_a_graph_break(name: str) -> None:
    torch._dynamo.reset()
    model, inputs = tiny_model(), tiny_inputs(batch=1)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    with back_end(name), runs(name, *OPS):
        expected = torch.autograd.grad(loss_of(model(*inputs)), list(model.parameters()))
        grads = torch.autograd.grad(loss_of(compiled(*inputs)), list(model.parameters()))
        with torch.no_grad():
            torch.testing.assert_close(compiled(*inputs), model(*inputs), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(grads, expected, rtol=1e-4, atol=1e-5)


def test_modulations_of_a_rollout_are_those_of_its_steps() -> None:
    model, (rgb, depth, text, *_) = tiny_model(), tiny_inputs()
    t_rgb, t_depth = torch.tensor([[0.9, 0.5], [0.7, 0.2]]).to(DEVICE)
    rollout = model.modulations(t_rgb, t_depth)
    with torch.no_grad():
        for step in range(2):
            times = t_rgb[step].expand(2), t_depth[step].expand(2)
            expected = model(rgb, depth, text, *times, GRID)
            ours = model(rgb, depth, text, None, None, GRID, modulations=rollout.rows(step, step + 1))
            torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-5)


def test_tables_are_kept_for_a_few_sizes_and_trainable() -> None:
    model, (rgb, depth, text, *times, _) = tiny_model(), tiny_inputs()
    with torch.inference_mode():
        for length in range(1, 8):
            model(rgb, depth, text[:, :1].repeat(1, length, 1), *times, GRID)
    assert len(model.rotation._kept) == 4
    loss_of(model(rgb, depth, text[:, :1].repeat(1, 7, 1), *times, GRID)).backward()


def modulated(dtype: torch.dtype, width: int = 8) -> torch.Tensor:
    tokens, *vectors = torch.randn(3, 3, width, device=DEVICE, dtype=dtype)
    return adaln(tokens[None], [Segment(3, Modulation(*(vector[:1] for vector in vectors)))])


@needs_triton
def test_triton_asked_for_by_name_runs_or_raises() -> None:
    with back_end("triton"):
        with runs("triton", "adaln"):
            modulated(torch.float32)
        with pytest.raises(BackEndUnavailable, match=r"^adaln was asked to run on triton, but it has no float64\.$"):
            modulated(torch.float64)
        with pytest.raises(BackEndUnavailable, match="9000 channels are more than its 8192"):
            modulated(torch.float32, 9000)
        with pytest.raises(BackEndUnavailable, match="the last axis of an input is not contiguous"):
            swiglu(torch.randn(1, 6, 3, device=DEVICE).transpose(1, 2))


def test_the_automatic_choice_falls_back_and_says_so_once(caplog: pytest.LogCaptureFixture) -> None:
    call = Call("adaln", torch.device("cuda", 0), torch.float64, 8, False)
    candidates.cache_clear()
    log_once.cache_clear()
    with caplog.at_level(logging.INFO, "mforce.kernels"):
        for _ in range(2):
            assert candidates(call) == ()
    (line,) = (record.getMessage() for record in caplog.records)
    assert line.startswith("adaln runs on its PyTorch reference (triton: it has no float64; kitchen: ")


def test_a_cpu_runs_the_reference_unless_asked() -> None:
    with back_end("auto"), runs("reference", "swiglu"):
        swiglu(torch.randn(1, 3, 8))


@pytest.mark.parametrize("named", [False, True])
def test_without_an_optional_library(named: bool) -> None:
    """The automatic choice does without it; asked for by name it is missed, in one sentence."""
    code = """
import sys
sys.modules["triton"] = None
import torch
from mforce.kernels import swiglu
assert swiglu(torch.ones(1, 2, 4)).shape == (1, 2, 2)
"""
    environment = os.environ | {"MFORCE_KERNELS": "triton" if named else "auto", "TRITON_INTERPRET": "1"}
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert run.returncode == named, run.stderr
    last = (run.stderr.splitlines() or [""])[-1]
    assert ("BackEndUnavailable: swiglu was asked to run on triton, but Triton cannot be imported" in last) == named


@pytest.mark.parametrize(("asked", "reason"), [("auto", "CPU"), ("reference", "asked for")])
def test_info_says_what_runs_where_and_why(asked: str, reason: str) -> None:
    command = [sys.executable, "-m", "mforce", "info", "--kernels", "--json"]
    environment = os.environ | {"MFORCE_KERNELS": asked, "TRITON_INTERPRET": "0"}
    run = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert run.returncode == 0, run.stderr
    rows = json.loads(run.stdout)["cpu"]
    assert set(rows) == set(OPS)
    for operation, row in rows.items():
        assert row["back_ends"]["reference"] == "works"
        assert row["back_ends"]["triton"] == "Triton has no code for cpu tensors"
        if operation != "attention" or asked == "reference":
            assert (row["back_end"], row["reason"]) == ("reference", reason)
    assert rows["attention"]["back_ends"]["sdpa"] == "works"
