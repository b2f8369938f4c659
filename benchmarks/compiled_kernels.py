"""Registers, shared memory and spills of every Triton kernel in the model's sizes, compiled for GPUs that are not here.

``python -m mforce.benchmarks.compiled_kernels --write docs/kernels`` writes the page of the installed Triton.
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from ..kernels.triton import adaln, attention, attention_backward, rope, swiglu
from ..kernels.triton.ahead_of_time import TARGETS, Figures, compile_only, triton_version, why_not


class Case(NamedTuple):
    """One size and type that the model uses; ``quick`` ones are compiled by every run of the tests."""

    name: str
    hidden_size: int
    head_dim: int
    dtype: torch.dtype
    quick: bool = False


CASES = (
    Case("release, bfloat16", 4096, 128, torch.bfloat16, quick=True),
    Case("release, float32", 4096, 128, torch.float32),
    Case("klein-4B, bfloat16", 3072, 128, torch.bfloat16),
    Case("nano, float32", 256, 32, torch.float32, quick=True),
    Case("nano, bfloat16", 256, 32, torch.bfloat16),
    Case("nano with heads of 64, float32", 256, 64, torch.float32),
    Case("nano with heads of 64, bfloat16", 256, 64, torch.bfloat16),
)

#: Tokens of one 512 x 512 picture with its depth and text; a power of two divides it, as it does most lengths.
_TOKENS = 2560
_TEXT = 512
_EPS = 1e-6


class Row(NamedTuple):
    """Figures of one kernel; ``operation`` says which of its variants it is."""

    target: str
    case: str
    operation: str
    figures: Figures

    def line(self) -> str:
        """The row of the page's table."""
        kernel, warps, registers, spilled, shared, programs, units = self.figures
        cells = (self.case, f"`{kernel}`", self.operation, warps, registers, spilled, shared, programs)
        return f"| {' | '.join(map(str, cells))} | {', '.join(units)} |"


def _launch_attention(case: Case, tensor: Callable[..., Tensor]) -> Iterable[str]:
    heads = case.hidden_size // case.head_dim
    q, k, v = tensor(_TOKENS, 3, heads, case.head_dim).unbind(2)
    # Attention writes into the left part of the [attention | mlp] buffer.
    out = tensor(_TOKENS, 4 * case.hidden_size)[..., : case.hidden_size]
    logsumexp = attention.forward(q, k, v, out)
    attention_backward.backward(out, q, k, v, out, logsumexp)
    return [""] * 4


def _launch_adaln(case: Case, tensor: Callable[..., Tensor]) -> Iterable[str]:
    x, y, z, h = (tensor(_TOKENS, case.hidden_size) for _ in range(4))
    pair = [tensor(case.hidden_size)] * 2
    lengths = [_TOKENS - _TEXT, _TEXT]
    adaln.forward(x, None, None, h, lengths, (), pair, pair, _EPS)
    adaln.forward(x, y, z, None, lengths, pair, (), (), _EPS)
    adaln.forward(x, y, z, h, lengths, pair, pair, pair, _EPS)
    adaln.backward(x, None, None, h, [_TOKENS], [], pair[:1], _EPS)
    adaln.backward(None, y, z, None, [_TOKENS], pair[:1], [], _EPS)
    adaln.backward(x, y, z, h, [_TOKENS], pair[:1], pair[:1], _EPS)
    return ["adaln", "gated_residual", "gated_residual_adaln"] * 2


def _launch_rope(case: Case, tensor: Callable[..., Tensor]) -> Iterable[str]:
    heads = case.hidden_size // case.head_dim
    # qkv is the left part of what a single block's Linear writes.
    packed = tensor(_TOKENS, 9 * case.hidden_size)[..., : 3 * case.hidden_size]
    qkv = packed.unflatten(-1, (3, heads, case.head_dim))
    scale = tensor(case.head_dim)[0]
    table = torch.empty(2, _TOKENS, case.head_dim // 2)
    joint = [tensor(_TOKENS, heads, case.head_dim) for _ in range(3)]
    for q, k, v in (qkv.unbind(2), joint):
        rope.forward(qkv, scale, scale, table, q, k, v, _EPS)
    q, k, v = joint
    rope.backward(q, k, v, qkv, scale, scale, table, _EPS)
    return ["in place", "into a joint buffer", ""]


def _launch_swiglu(case: Case, tensor: Callable[..., Tensor]) -> Iterable[str]:
    width = 3 * case.hidden_size
    packed = tensor(_TOKENS, 9 * case.hidden_size)[..., width:]
    out = tensor(_TOKENS, case.hidden_size + width)[..., case.hidden_size :]
    swiglu.forward(packed, out)
    swiglu.backward(out, packed)
    return [""] * 2


_LAUNCHES = (_launch_attention, _launch_adaln, _launch_rope, _launch_swiglu)


def compile_here(target: str, cases: Sequence[Case]) -> list[Row]:
    """Compile every kernel in this process, which can do nothing else afterwards; one that does not compile raises."""
    compiled = compile_only(target)
    rows = []
    for case in cases:
        # Nobody writes to these tensors, so they take no memory.
        empty = partial(torch.empty, 1, dtype=case.dtype)
        for start in _LAUNCHES:
            operations = start(case, empty)
            rows += [Row(target, case.name, *pair) for pair in zip(operations, compiled, strict=True)]
            compiled.clear()
    return rows


def compile_apart(targets: Sequence[str], quick: bool = False) -> dict[str, list[Row]]:
    """Compile every kernel, each target in a process of its own, as many at a time as there are processors.

    Args:
        targets: names of ``TARGETS`` that the installed Triton can compile for.
        quick: only the quick cases.

    Raises:
        RuntimeError: a kernel did not compile, or the compiler ended the process.
    """

    def run(target: str) -> list[Row]:
        command = [sys.executable, "-m", __spec__.name, "--rows", target, *(["--quick"] if quick else [])]
        environment = os.environ | {"TRITON_INTERPRET": "0"}
        ended = subprocess.run(command, capture_output=True, text=True, env=environment)
        if ended.returncode:
            raise RuntimeError(f"compiling for {target} failed: {ended.stderr[-3000:]}")
        return [
            Row(target, case, operation, Figures._make((*numbers, tuple(units))))
            for _, case, operation, (*numbers, units) in json.loads(ended.stdout.splitlines()[-1])
        ]

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return dict(zip(targets, pool.map(run, targets), strict=True))


def page(version: str, rows: dict[str, list[Row]], left_out: dict[str, str]) -> str:
    """The page of one version of Triton: a table for each target, and the targets that it cannot compile for."""
    parts = [_HEAD.format(version=version)]
    for target, found in rows.items():
        parts.append(f"## {target}\n\n{_COLUMNS}\n" + "\n".join(row.line() for row in found))
    parts += [f"## {target}\n\nNot compiled: {reason}." for target, reason in left_out.items()]
    return "\n\n".join(parts) + "\n"


_COLUMNS = """\
| case | kernel | variant | warps | registers | spilled | shared | programs | matrix units |
|---|---|---|---|---|---|---|---|---|"""

_HEAD = """\
# What the kernels take of a GPU: Triton {version}

Written by `python -m mforce.benchmarks.compiled_kernels --write docs/kernels`, which compiles every kernel in the sizes
of the model for GPUs that need not be there; nothing here was measured on one. Registers are per thread, `spilled` is
bytes per thread in local memory, `shared` bytes per program, `programs` how many a multiprocessor holds at once by
registers, shared memory and warps. Matrix units: the instructions that multiply matrices; `scalar` where a product runs
without them. Release: 4096 channels, heads of 128; klein-4B: 3072, 128; nano: 256, 32."""


def page_name(version: str) -> str:
    return f"compiled-triton-{version}.md"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", type=Path, metavar="FOLDER", help="write the installed Triton's page into it")
    parser.add_argument("--rows", choices=TARGETS, help="compile for one target and print its rows as JSON")
    parser.add_argument("--quick", action="store_true", help="only what the tests compile")
    options = parser.parse_args(arguments)
    if options.rows:
        print(json.dumps(compile_here(options.rows, [case for case in CASES if case.quick or not options.quick])))
        return
    left_out = {target: reason for target in TARGETS if (reason := why_not(target))}
    rows = compile_apart([target for target in TARGETS if target not in left_out], options.quick)
    text = page(triton_version(), rows, left_out)
    if options.write:
        (options.write / page_name(triton_version())).write_text(text, encoding="utf-8")
    else:
        print(text)


if __name__ == "__main__":
    main()
