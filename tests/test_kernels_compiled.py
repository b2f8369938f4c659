"""Every kernel compiled for GPUs that are not here: does it fit, does it spill, does it use the matrix units."""

import ast
import importlib.util
import os
from pathlib import Path

import pytest
import torch

if importlib.util.find_spec("triton") is None:
    pytest.skip("Triton is not installed", allow_module_level=True)
if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")  # as the other tests have it: read when Triton is imported

from mforce.benchmarks.compiled_kernels import CASES, Row, compile_apart, page_name
from mforce.kernels.triton import adaln, rope
from mforce.kernels.triton.ahead_of_time import TARGETS, triton_version, why_not

ROOT = Path(__file__).parent.parent

#: Registers per thread that a kernel may take, over all targets; the hardware's limit is 255, on AMD 512.
REGISTERS = {
    "attention_forward": 255,
    "attention_backward_delta": 64,
    "attention_backward_dkdv": 255,
    "attention_backward_dq": 224,
    "adaln_forward": 72,
    "adaln_backward": 128,
    "qk_norm_rope_forward": 56,
    "qk_norm_rope_backward": 128,
    "swiglu_forward": 48,
    "swiglu_backward": 56,
}
AMD_REGISTERS = REGISTERS | {
    "attention_forward": 360,
    "attention_backward_dkdv": 312,
}

#: Bytes per thread in local memory that a kernel may spill on NVIDIA GPUs; all others, and all on AMD's: none.
SPILLS = {"attention_backward_dkdv": 16, "attention_backward_dq": 8}

#: What multiplies matrices in bfloat16, and in float32, which is kept whole.
UNITS = {
    "sm_80": ("mma.sync", "scalar"),
    "sm_90": ("wgmma", "scalar"),
    "sm_100": ("tcgen05", "scalar"),
    "gfx942": ("mfma", "mfma"),
}
PRODUCTS = {"attention_forward", "attention_backward_dkdv", "attention_backward_dq"}


def spill_bound(target: str, kernel: str) -> int:
    return SPILLS.get(kernel, 0) if TARGETS[target].backend == "cuda" else 0


@pytest.fixture(scope="module")
def compiled() -> dict[str, list[Row]]:
    return compile_apart([target for target in UNITS if not why_not(target)], quick=True)


@pytest.fixture(params=UNITS)
def rows(request: pytest.FixtureRequest, compiled: dict[str, list[Row]]) -> list[Row]:
    reason = why_not(request.param)
    if reason:
        pytest.skip(reason)
    return compiled[request.param]


def test_every_kernel_is_compiled(rows: list[Row]) -> None:
    launched = set()
    for file in (ROOT / "kernels" / "triton").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "launch":
                launched.add(ast.unparse(node.args[0]))
    assert launched == set(REGISTERS)
    for case in CASES:
        if case.quick:
            assert {row.figures.kernel for row in rows if row.case == case.name} == launched


def test_shared_memory_and_registers_fit(rows: list[Row]) -> None:
    for row in rows:
        target, figures = TARGETS[row.target], row.figures
        bounds = REGISTERS if target.backend == "cuda" else AMD_REGISTERS
        assert 0 <= figures.shared <= target.shared, row
        assert 0 < figures.registers <= bounds[figures.kernel], row
        assert figures.programs >= 1, row


def test_spills_are_bounded(rows: list[Row]) -> None:
    for row in rows:
        assert 0 <= row.figures.spilled <= spill_bound(row.target, row.figures.kernel), row


def test_products_run_on_matrix_units(rows: list[Row]) -> None:
    for row in rows:
        half, whole = UNITS[row.target]
        expected = (half if "bfloat16" in row.case else whole,) if row.figures.kernel in PRODUCTS else ()
        assert row.figures.units == expected, row


def test_the_programs_of_a_reduction_are_one_wave(rows: list[Row]) -> None:
    kinds = {"gated_residual_adaln": (True, True), "adaln": (False, True), "gated_residual": (True, False)}
    for row in rows:
        figures = row.figures
        if figures.kernel == "adaln_backward":
            assert figures.programs * figures.warps >= adaln.SHARES[kinds[row.operation]].warps, row
        elif figures.kernel == "qk_norm_rope_backward":
            assert figures.programs >= rope.PROGRAMS_PER_PROCESSOR, row


def test_the_page_says_what_is_compiled(rows: list[Row]) -> None:
    page = ROOT / "docs" / "kernels" / page_name(triton_version())
    if not page.exists():
        pytest.skip(f"no page was written for Triton {triton_version()}")
    sections = page.read_text(encoding="utf-8").split("\n## ")
    section = next(text for text in sections if text.startswith(f"{rows[0].target}\n"))
    for row in rows:
        assert row.line() in section, f"write the page again, see its head: {row}"


PAGES = sorted((ROOT / "docs" / "kernels").glob(page_name("*")))


@pytest.mark.parametrize("page", PAGES, ids=[page.stem.rpartition("-")[2] for page in PAGES])
def test_every_version_with_a_page_stays_within_the_bounds(page: Path) -> None:
    """The figures of versions that are not installed here."""
    for section in page.read_text(encoding="utf-8").split("\n## ")[1:]:
        target, *lines = section.splitlines()
        for line in lines:
            if "`" not in line or not line.startswith("|"):
                continue
            _, kernel, _, _, registers, spilled, shared, programs, _ = (
                cell.strip(" `") for cell in line.split("|")[1:-1]
            )
            bounds = REGISTERS if TARGETS[target].backend == "cuda" else AMD_REGISTERS
            assert int(registers) <= bounds[kernel], (target, line)
            assert int(spilled) <= spill_bound(target, kernel), (target, line)
            assert int(shared) <= TARGETS[target].shared, (target, line)
            assert int(programs) >= 1, (target, line)
