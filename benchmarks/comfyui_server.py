"""A real ComfyUI of its own, with this pack, to be talked to over HTTP.

It runs on the CPU with a free port and empty folders of its own, so that nothing of a person's installation is touched.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .process_memory import status_bytes

PACK = Path(__file__).resolve().parent.parent
FOLDERS = ("custom_nodes", "models", "input", "output", "temp", "user")


class ServerEnded(RuntimeError):
    """The server's process is gone."""


class ComfyUI:
    """A server process and the requests that go to it.

    Args:
        root: a checkout of ComfyUI.
        base: an empty folder for models, input, output and the log.
        python: runs ComfyUI; by default that of its virtual environment.
        pack_folder: what the pack's folder is called among the custom nodes.
        pack: the pack, beside those that are there already.
        before: a command that starts the server's, such as ``("nice", "-n", "10")``.
        environment: variables that are added to this process's.
    """

    def __init__(
        self,
        root: Path,
        base: Path,
        python: Path | None = None,
        *,
        pack_folder: str = "modality-forcing",
        pack: Path = PACK,
        before: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
    ) -> None:
        for name in FOLDERS:
            (base / name).mkdir(parents=True, exist_ok=True)
        (base / "custom_nodes" / pack_folder).symlink_to(pack, target_is_directory=True)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.base, self.url, self._log = base, f"http://127.0.0.1:{port}", base / "server.log"
        command = [
            *before,
            *(str(python or root / ".venv" / "bin" / "python"), "main.py"),
            *("--cpu", "--port", str(port), "--base-directory", str(base), "--disable-auto-launch"),
            *("--database-url", "sqlite:///:memory:", "--preview-method", "latent2rgb"),
        ]
        with self._log.open("a") as log:
            self.process = subprocess.Popen(
                command, cwd=root, stdout=log, stderr=subprocess.STDOUT, env={**os.environ, **(environment or {})}
            )

    def __enter__(self) -> ComfyUI:
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()

    @property
    def log(self) -> str:
        """What the server has printed."""
        return self._log.read_text(encoding="utf-8", errors="replace")

    @property
    def resident_bytes(self) -> int:
        """Memory that the server's process holds (``VmRSS`` of Linux)."""
        return status_bytes("VmRSS", self.process.pid)

    @property
    def peak_bytes(self) -> int:
        """The most that it held (``VmHWM``)."""
        return status_bytes("VmHWM", self.process.pid)

    def wait_until_ready(self, limit: float = 600.0) -> None:
        """Return when the server answers.

        Raises:
            ServerEnded: it stopped, or did not answer within ``limit`` seconds.
        """
        end = time.monotonic() + limit
        while time.monotonic() < end:
            try:
                self.request("/system_stats")
                return
            except (urllib.error.URLError, ConnectionError, TimeoutError):
                time.sleep(0.3)
        raise ServerEnded(f"ComfyUI did not answer in {limit:.0f} s:\n{self.log[-4000:]}")

    def request(self, path: str, body: Any = None) -> tuple[int, Any]:
        """Status and JSON of an answer; a body makes the request a POST.

        Raises:
            ServerEnded: the process is gone.
        """
        if self.process.poll() is not None:
            raise ServerEnded(f"ComfyUI ended with {self.process.returncode}:\n{self.log[-4000:]}")
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.status, _json(answer.read())
        except urllib.error.HTTPError as refused:
            return refused.code, _json(refused.read())

    def queue(self, prompt: Mapping[str, Any], client: str = "soak") -> str:
        """Start a prompt; its id.

        Raises:
            ValueError: the server refused it or a part of it.
        """
        status, answer = self.request("/prompt", {"prompt": prompt, "client_id": client})
        if status != 200 or answer.get("node_errors"):
            raise ValueError(f"the prompt was refused ({status}): {json.dumps(answer)[:2000]}")
        return str(answer["prompt_id"])

    def is_running(self, prompt_id: str) -> bool:
        """Whether a prompt is being executed."""
        return any(entry[1] == prompt_id for entry in self.request("/queue")[1]["queue_running"])

    def wait(self, prompt_id: str, limit: float = 600.0, pause: float = 0.1) -> dict[str, Any]:
        """The history entry of a prompt once it has ended, well or not.

        Raises:
            TimeoutError: it did not end within ``limit`` seconds.
        """
        end = time.monotonic() + limit
        while time.monotonic() < end:
            history = self.request(f"/history/{prompt_id}")[1]
            if prompt_id in history:
                return dict(history[prompt_id])
            time.sleep(pause)
        raise TimeoutError(f"prompt {prompt_id} did not end in {limit:.0f} s")

    def stop(self) -> None:
        """End the server; kill it where it does not follow."""
        self.process.terminate()
        try:
            self.process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def messages(entry: Mapping[str, Any], kind: str) -> list[dict[str, Any]]:
    """Bodies of the messages of a kind, such as ``execution_error``, in a history entry."""
    return [body for name, body in entry["status"]["messages"] if name == kind]


def _json(text: bytes) -> Any:
    try:
        return json.loads(text) if text else None
    except ValueError:
        return text.decode(errors="replace")
