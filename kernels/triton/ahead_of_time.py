"""Compile the kernels for GPUs that are not here, and read from the machine code what it needs of them.

Triton brings the assemblers of both its back ends, so neither a GPU nor a driver takes part. Launchers are called as
they always are: after :func:`compile_only` a launch compiles its kernel for the target and goes no further.
"""

import re
import subprocess
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import triton
from triton.backends.compiler import GPUTarget
from triton.runtime.driver import driver
from triton.runtime.jit import JITFunction

from . import interpreted


class Target(NamedTuple):
    """A kind of GPU, what one program may take of it, and what a multiprocessor has."""

    backend: str
    architecture: int | str
    lanes: int  #: of a warp
    shared: int  #: bytes that one program may take at most
    processor_shared: int  #: bytes that all programs on a multiprocessor share
    registers: int  #: 32-bit registers of a multiprocessor
    warps: int  #: that a multiprocessor keeps at most
    oldest_triton: tuple[int, int]  #: that compiles for it without a further installation


_KB = 1024

#: NVIDIA: CUDA C++ Programming Guide, "Technical Specifications per Compute Capability". AMD: "CDNA3 Instruction Set
#: Architecture" and the hardware table of the ROCm documentation; older releases of Triton look for ROCm's linker.
TARGETS = {
    "sm_80": Target("cuda", 80, 32, 163 * _KB, 164 * _KB, 65536, 64, (3, 0)),
    "sm_89": Target("cuda", 89, 32, 99 * _KB, 100 * _KB, 65536, 48, (3, 0)),
    "sm_90": Target("cuda", 90, 32, 227 * _KB, 228 * _KB, 65536, 64, (3, 0)),
    "sm_100": Target("cuda", 100, 32, 227 * _KB, 228 * _KB, 65536, 64, (3, 3)),
    "sm_120": Target("cuda", 120, 32, 99 * _KB, 100 * _KB, 65536, 48, (3, 3)),
    "gfx942": Target("hip", "gfx942", 64, 64 * _KB, 64 * _KB, 131072, 32, (3, 5)),
}

#: Of the assembly, which shows what multiplies matrices: instructions of NVIDIA's PTX and of AMD's machine code.
_MATRIX_UNITS = {"mma.sync": "mma.sync", "wgmma.mma_async": "wgmma", "tcgen05.mma": "tcgen05", "v_mfma_": "mfma"}

#: A product that Triton gave no layout of a matrix unit: its result is spread over threads as any tensor is.
_SCALAR_PRODUCT = re.compile(r"tt\.dot .*-> tensor<[^>]*#blocked")


class Figures(NamedTuple):
    """What a compiled kernel takes of its target."""

    kernel: str
    warps: int
    registers: int  #: per thread
    spilled: int  #: bytes per thread in local memory
    shared: int  #: bytes per program
    programs: int  #: that one multiprocessor holds at once
    units: tuple[str, ...]  #: that multiply matrices; "scalar" where a product does without them


def triton_version() -> str:
    return triton.__version__


def why_not(name: str) -> str | None:
    """Why the installed Triton cannot compile for a target of :data:`TARGETS`, as a phrase; None where it can."""
    oldest = TARGETS[name].oldest_triton
    if tuple(int(part) for part in triton.__version__.split(".")[:2]) < oldest:
        return f"Triton {triton.__version__} has no complete compiler for {name}, {oldest[0]}.{oldest[1]} is the first"
    return None


class _Driver:
    """Stands for the driver of a GPU that is not here."""

    def __init__(self, target: Target) -> None:
        self._target = GPUTarget(target.backend, target.architecture, target.lanes)

    def get_current_target(self) -> GPUTarget:
        return self._target

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return 0


def compile_only(name: str) -> list[Figures]:
    """From here on, make this process compile launches for a target of :data:`TARGETS` and not launch.

    The device of their tensors plays no part. There is no way back, so it is for a process that does nothing else.

    Returns:
        A list that each launch adds its figures to.

    Raises:
        RuntimeError: Triton's interpreter is on.
    """
    if interpreted():
        raise RuntimeError("Triton's interpreter compiles nothing: TRITON_INTERPRET must not be set")
    target, found = TARGETS[name], []
    launched = JITFunction.run

    def run(kernel: Any, *arguments: Any, grid: Any, warmup: bool, **options: Any) -> None:
        compiled = launched(kernel, *arguments, grid=grid, warmup=True, **options)
        found.append(_figures(kernel.fn.__name__, compiled, target))

    JITFunction.run = run
    driver.set_active(_Driver(target))
    return found


def _figures(name: str, compiled: Any, target: Target) -> Figures:
    read, assembly = (_of_cubin, "ptx") if target.backend == "cuda" else (_of_amdgcn, "amdgcn")
    registers, spilled = read(compiled.asm)
    warps, shared = compiled.metadata.num_warps, compiled.metadata.shared
    units = [unit for instruction, unit in _MATRIX_UNITS.items() if instruction in compiled.asm[assembly]]
    if _SCALAR_PRODUCT.search(compiled.asm["ttgir"]):
        units.append("scalar")
    limits = [target.registers // (registers * target.lanes * warps), target.warps // warps]
    if shared:
        limits.append(target.processor_shared // (shared + _KB))  # NVIDIA keeps a kilobyte of each program to itself
    return Figures(name, warps, registers, spilled, shared, min(limits), tuple(units))


def _of_cubin(code: dict[str, Any]) -> tuple[int, int]:
    """Registers and bytes of local memory per thread, from ``cuobjdump -res-usage``."""
    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "kernel.cubin"
        file.write_bytes(code["cubin"])
        command = [str(tool), "-res-usage", str(file)]
        report = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    usage = dict(re.findall(r"(REG|STACK|LOCAL):(\d+)", report))
    return int(usage["REG"]), int(usage["STACK"]) + int(usage["LOCAL"])


def _of_amdgcn(code: dict[str, Any]) -> tuple[int, int]:
    """The same per lane, from the metadata that the assembler wrote behind the code."""
    usage = dict(re.findall(r"\.(vgpr_count|private_segment_fixed_size):\s+(\d+)", code["amdgcn"]))
    return int(usage["vgpr_count"]), int(usage["private_segment_fixed_size"])
