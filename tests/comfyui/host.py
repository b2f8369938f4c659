"""Finding a ComfyUI checkout and its Python, and running one as a server of its own."""

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

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
    pytest.skip(f"no Python for {root}: make its virtual environment, or set COMFYUI_PYTHON")


def _can_run_comfyui(python: Path) -> bool:
    """Whether ComfyUI's requirements are installed there; looks without importing them, which takes long."""
    probe = "import sys, importlib.util as u; sys.exit(not all(map(u.find_spec, ('torch', 'aiohttp', 'av'))))"
    return subprocess.run([str(python), "-c", probe], capture_output=True).returncode == 0


class Server:
    """A ComfyUI of its own: CPU, free port, empty folders, a pack (this one) beside those already in its folder."""

    def __init__(self, installation: Installation, base: Path, pack_folder: str, pack: Path = PACK) -> None:
        for name in ("custom_nodes", "models", "input", "output", "temp", "user"):
            (base / name).mkdir(exist_ok=True)
        (base / "custom_nodes" / pack_folder).symlink_to(pack, target_is_directory=True)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.base, self.url, self._log = base, f"http://127.0.0.1:{port}", base / "server.log"
        command = [
            str(installation.python),
            "main.py",
            *("--cpu", "--port", str(port), "--base-directory", str(base), "--disable-auto-launch"),
            *("--database-url", "sqlite:///:memory:", "--preview-method", "latent2rgb"),
        ]
        with self._log.open("w") as log:
            self._process = subprocess.Popen(command, cwd=installation.root, stdout=log, stderr=subprocess.STDOUT)

    @property
    def log(self) -> str:
        return self._log.read_text(encoding="utf-8", errors="replace")

    def wait_until_ready(self, limit: float = 300) -> None:
        end = time.monotonic() + limit
        while time.monotonic() < end:
            assert self._process.poll() is None, f"ComfyUI stopped:\n{self.log[-4000:]}"
            try:
                self.get("/system_stats")
                return
            except (urllib.error.URLError, ConnectionError):
                time.sleep(0.5)
        raise AssertionError(f"ComfyUI did not start in {limit} s:\n{self.log[-4000:]}")

    def get(self, path: str) -> Any:
        with urllib.request.urlopen(self.url + path, timeout=60) as answer:
            return json.load(answer)

    def post(self, path: str, body: Any) -> Any:
        data = json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                text = answer.read()
        except urllib.error.HTTPError as refused:
            raise AssertionError(f"{path}: {refused.read().decode()[:2000]}") from refused
        return json.loads(text) if text else None

    def queue(self, prompt: dict[str, Any]) -> str:
        """Start a prompt and return its id; no part of it may be refused."""
        answer = self.post("/prompt", {"prompt": prompt})
        assert not answer.get("node_errors"), answer["node_errors"]
        return answer["prompt_id"]

    def wait(self, prompt_id: str, limit: float = 900) -> dict[str, Any]:
        """The history entry of a prompt once it has ended, well or not."""
        end = time.monotonic() + limit
        while time.monotonic() < end:
            history = self.get(f"/history/{prompt_id}")
            if prompt_id in history:
                return history[prompt_id]
            time.sleep(0.3)
        raise AssertionError(f"prompt {prompt_id} did not end in {limit} s:\n{self.log[-4000:]}")

    def stop(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
