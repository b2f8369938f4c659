"""Every module imports on Linux, macOS and Windows: what a platform's Python or registry lacks is taken away here."""

import subprocess
import sys

import pytest

from .test_import_graph import MODULES

UNIX_ONLY = {"fcntl", "grp", "posix", "pwd", "pty", "resource", "syslog", "termios", "tty"}
NO_TRITON = {"triton", "xformers"}

#: Kernels in Triton, and the tool that compiles them.
TRITON_ONLY = ("mforce.kernels.triton.", "mforce.benchmarks.compiled_kernels")

#: What the registry asks whether Triton is there.
WITHOUT_TRITON = {"mforce.kernels.triton", "mforce.kernels.triton.interpreter"}

#: Platform -> modules that an import statement of this project does not find there. Those of other libraries do.
MISSING = {"linux": {"msvcrt", "winreg", "_winapi"}, "macos": NO_TRITON, "windows": UNIX_ONLY | NO_TRITON}

IMPORT_ALL = """
import builtins, importlib, sys

missing, modules = set(sys.argv[1].split(",")), sys.argv[2].split(",")
find = builtins.__import__

def find_as_there(name, globals=None, locals=None, fromlist=(), level=0):
    importer = (globals or {}).get("__name__", "")
    if level == 0 and name.split(".")[0] in missing and importer.split(".")[0] == "mforce":
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)
    return find(name, globals, locals, fromlist, level)

builtins.__import__ = find_as_there
for module in modules:
    try:
        importlib.import_module(module)
    except ImportError as error:
        print(f"{module}: {error}")
"""


def importable(missing: set[str]) -> list[str]:
    """All modules that ought to import: not what runs in ComfyUI, and Triton's only where it is."""
    in_comfyui = ("mforce.nodes", "mforce.__main__", "mforce.benchmarks.memory_probe")
    left_out = (*in_comfyui, *(TRITON_ONLY if "triton" in missing else ()))
    return [module for module in MODULES if module in WITHOUT_TRITON or not module.startswith(left_out)]


@pytest.mark.parametrize("platform", MISSING)
def test_every_module_imports(platform: str) -> None:
    if platform == "linux":
        pytest.importorskip("triton")
    missing = MISSING[platform]
    command = [sys.executable, "-c", IMPORT_ALL, ",".join(missing), ",".join(importable(missing))]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    assert not run.stdout, run.stdout
