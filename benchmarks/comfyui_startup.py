"""What the pack adds to the start of ComfyUI: ``python -m mforce.benchmarks.comfyui_startup ~/ComfyUI [--out FILE]``.

Starts ComfyUI's server with this pack and with an empty pack in turn. Compares the time between the two lines that
ComfyUI logs before and after it imports a pack, by the clock and, on Linux, by the processor time of the importing
thread, which other work on the machine disturbs less; and the time until the server answers.
"""

import argparse
import json
import os
import platform
import re
import socket
import statistics
import subprocess
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterable
from pathlib import Path

PACK = Path(__file__).resolve().parent.parent
_EMPTY = "NODE_CLASS_MAPPINGS = {}\n"
_LIMIT = 300.0
_BEFORE, _AFTER = "Trying to load custom node", "Import times for custom nodes"


def start(root: Path, python: Path, pack: Path) -> dict[str, float]:
    """Start ComfyUI with one pack and stop it when it answers; seconds of the import and until it was ready."""
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder)
        for name in ("custom_nodes", "models", "input", "output", "temp", "user"):
            (base / name).mkdir()
        (base / "custom_nodes" / pack.name).symlink_to(pack, target_is_directory=True)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        command = [
            *(str(python), "main.py", "--cpu", "--port", str(port), "--base-directory", folder),
            *("--disable-auto-launch", "--database-url", "sqlite:///:memory:", "--verbose", "DEBUG"),
        ]
        started = time.perf_counter()
        process = subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        assert process.stdout is not None
        stamps: dict[str, tuple[float, float]] = {}
        reader = threading.Thread(target=_stamp, args=(process.stdout, process.pid, stamps))
        reader.start()
        try:
            while not _answers(port):
                if process.poll() is not None or time.perf_counter() - started > _LIMIT:
                    raise RuntimeError(f"ComfyUI did not start with {pack}: run it there to see why.")
                time.sleep(0.02)
            ready = time.perf_counter() - started
        finally:
            process.terminate()
            process.wait()
            reader.join()
        (before, before_processor), (after, after_processor) = stamps[_BEFORE], stamps[_AFTER]
        return {"import": after - before, "import_processor": after_processor - before_processor, "until_ready": ready}


def _stamp(log: Iterable[str], pid: int, stamps: dict[str, tuple[float, float]]) -> None:
    """Note the clock and the main thread's processor time when the lines around the import come."""
    for line in log:
        for mark in (_BEFORE, _AFTER):
            if mark in line:
                stamps[mark] = time.perf_counter(), _processor_seconds(pid)


def _processor_seconds(pid: int) -> float:
    """Processor time of a process's main thread; NaN where the system does not say it."""
    try:
        return int(Path(f"/proc/{pid}/task/{pid}/schedstat").read_text().split()[0]) / 1e9
    except OSError:
        return float("nan")


def _answers(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/system_stats", timeout=5):
            return True
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return False


def compare(root: Path, python: Path, runs: int) -> dict[str, object]:
    """Both packs in turn, ``runs`` times each after one start that warms the disk up; medians and all runs."""
    with tempfile.TemporaryDirectory() as folder:
        empty = Path(folder) / "empty-pack"
        empty.mkdir()
        (empty / "__init__.py").write_text(_EMPTY, encoding="utf-8")
        packs = {"this_pack": PACK, "empty_pack": empty}
        measured: dict[str, list[dict[str, float]]] = {name: [] for name in packs}
        for turn in range(runs + 1):
            for name, pack in packs.items():
                seconds = start(root, python, pack)
                if turn:
                    measured[name].append(seconds)
    medians = {
        name: {key: statistics.median(one[key] for one in starts) for key in starts[0]}
        for name, starts in measured.items()
    }
    added = {key: medians["this_pack"][key] - medians["empty_pack"][key] for key in medians["this_pack"]}
    return {"added_seconds": added, "median_seconds": medians, "runs": measured}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("comfyui", type=Path, help="ComfyUI's folder")
    parser.add_argument("--python", type=Path, help="its Python (default: that of its .venv)")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--out", type=Path, help="write the result as JSON here")
    arguments = parser.parse_args()
    root = arguments.comfyui.expanduser().resolve()
    result = {
        "device": f"{_processor()}, {os.cpu_count()} cores",
        **compare(root, arguments.python or root / ".venv" / "bin" / "python", arguments.runs),
    }
    text = json.dumps(result, indent=1)
    print(text)
    if arguments.out:
        arguments.out.write_text(text + "\n", encoding="utf-8")


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    names = re.findall(r"model name\s*: (.+)", cpuinfo.read_text()) if cpuinfo.is_file() else []
    return names[0] if names else platform.processor() or platform.machine()


if __name__ == "__main__":
    main()
