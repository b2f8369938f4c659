"""Finding a ComfyUI checkout and its Python, and running one as a server of its own."""

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from mforce.benchmarks.comfyui_server import ComfyUI

PACK = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Installation:
    """A ComfyUI checkout and the Python that runs it."""

    root: Path
    python: Path

    def run(self, script: Path, *arguments: Any) -> str:
        """The last line that a script prints; ComfyUI's Python runs it, with ComfyUI importable."""
        environment = {**os.environ, "PYTHONPATH": str(self.root)}
        command = [self.python, script, *arguments]
        done = subprocess.run([str(part) for part in command], env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-4000:]
        return done.stdout.strip().splitlines()[-1]


def find_installation() -> Installation:
    """ComfyUI at COMFYUI_PATH or ~/ComfyUI and its Python; skips the test where there is none."""
    root = Path(os.environ.get("COMFYUI_PATH", "~/ComfyUI")).expanduser()
    if not (root / "comfy" / "samplers.py").is_file():
        pytest.skip(f"no ComfyUI at {root}: set COMFYUI_PATH to a checkout of ComfyUI 0.33 or newer")
    folders = [root / ".venv", root / "venv", root / "python_embeded", root.parent / "python_embeded"]
    pythons = [folder / name for folder in folders for name in ("bin/python", "Scripts/python.exe", "python.exe")]
    named = os.environ.get("COMFYUI_PYTHON")
    for python in [Path(named)] if named else [*pythons, Path(sys.executable)]:
        if python.is_file() and _can_run_comfyui(python):
            return Installation(root, python)
    pytest.skip(
        f"no Python for {root} has its requirements and this pack's (requirements.txt): "
        "make its virtual environment, or set COMFYUI_PYTHON"
    )


def _can_run_comfyui(python: Path) -> bool:
    """Whether ComfyUI's requirements and the pack's are there; looks without importing them, which takes long."""
    needed = ("torch", "aiohttp", "av", "OpenEXR")
    probe = f"import sys, importlib.util as u; sys.exit(not all(map(u.find_spec, {needed})))"
    return subprocess.run([str(python), "-c", probe], capture_output=True).returncode == 0


class Server(ComfyUI):
    """A ComfyUI of its own with a pack (this one); what it answers is held against what a test expects."""

    def __init__(
        self, installation: Installation, base: Path, pack_folder: str, pack: Path = PACK, **options: Any
    ) -> None:
        super().__init__(installation.root, base, installation.python, pack_folder=pack_folder, pack=pack, **options)
        self.log_of_start = ""

    def wait_until_ready(self, limit: float = 600.0) -> None:
        super().wait_until_ready(limit)
        self.log_of_start = self.log  # later tests make the server complain on purpose

    def get(self, path: str) -> Any:
        return self.request(path)[1]

    def post(self, path: str, body: Any) -> Any:
        status, answer = self.request(path, body)
        assert status == 200, f"{path}: {str(answer)[:2000]}"
        return answer

    def wait(self, prompt_id: str, limit: float = 900, pause: float = 0.3) -> dict[str, Any]:
        """The history entry of a prompt once it has ended, well or not; a TimeoutError shows the server's log."""
        try:
            return super().wait(prompt_id, limit, pause)
        except TimeoutError as error:
            raise TimeoutError(f"{error}:\n{self.log[-4000:]}") from error
