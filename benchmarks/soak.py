"""Hundreds of prompts, each unlike the last, through a real ComfyUI: ``python -m mforce.benchmarks.soak ~/ComfyUI``.

Sizes, batches, tasks, samplers, models (bf16, fp8, int8) and a LoRA change from prompt to prompt; every tenth prompt is
interrupted. A prompt fails where it ends in an error, a file is missing or cannot be opened, or an interruption does
not end it. After each prompt the server's resident memory is read.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections import Counter
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from ..mforce_core.conversion.convert import Precision, convert_model
from ..mforce_core.depth.files import read_depth
from ..mforce_core.device import device_name
from ..mforce_core.picture.reading import read_picture
from ..mforce_core.scene3d.point_cloud_files import read_ply
from .comfyui_server import PACK, ComfyUI, ServerEnded, messages
from .soak_prompts import LORA, Prompt, draw

_CONVERSIONS: tuple[Precision, ...] = ("fp8", "int8")
_LIMIT = 300.0


def soak(server: ComfyUI, count: int, seed: int, seconds: float, report: Path | None) -> dict[str, Any]:
    """Run the prompts one after another.

    Args:
        count: how many.
        seconds: no prompt is started after so many.
        report: where the figures are written now and then, so that a soak that is cut off has its figures too.
    """
    models = prepare(server.base)
    command = f"python -m mforce.benchmarks.soak COMFYUI --count {count} --seed {seed}"
    system = server.request("/system_stats")[1]["system"]
    machine = {
        "device": f"{device_name(torch.device('cpu'))}, {os.cpu_count()} cores",
        "platform": platform.platform(),
        "comfyui": system["comfyui_version"],
        "python": system["python_version"].split()[0],
        "torch": system["pytorch_version"],
        "threads": os.environ.get("OMP_NUM_THREADS", "all"),
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "command": command,
    }
    memory: list[int] = []
    taken: list[float] = []
    failures: list[dict[str, Any]] = []
    kinds: dict[str, Counter[str]] = {}
    began, interrupted = time.monotonic(), 0
    for number in range(count):
        prompt = draw(seed, number, models)
        start = time.monotonic()
        try:
            problem = run_prompt(server, prompt)
        except ServerEnded as end:
            problem = str(end)
        taken.append(time.monotonic() - start)
        interrupted += prompt.interrupted
        if problem is not None:
            failures.append({"number": number, "what": problem, "kinds": prompt.kinds})
            print(f"prompt {number}: {problem}", file=sys.stderr, flush=True)
        for name, value in prompt.kinds.items():
            kinds.setdefault(name, Counter())[str(value)] += 1
        ended = server.process.poll() is not None
        if not ended:
            memory.append(server.resident_bytes)
        last = ended or number + 1 == count or time.monotonic() - began > seconds
        if last or number % 20 == 19:
            resident = memory_figures(memory)
            figures = {
                "machine": machine,
                "prompts": number + 1,
                "asked_for": count,
                "seed": seed,
                "interrupted": interrupted,
                "failures": failures,
                "seconds": round(time.monotonic() - began, 1),
                "seconds_per_prompt": {"median": round(statistics.median(taken), 2), "largest": round(max(taken), 2)},
                "resident_megabytes": resident,
                "kinds": {name: dict(sorted(counts.items())) for name, counts in kinds.items()},
            }
            if report is not None:
                report.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
            print(number + 1, resident.get("last", ""), file=sys.stderr, flush=True)
        if last:
            break
    return figures


def memory_figures(memory: list[int]) -> dict[str, Any]:
    """Medians of every hundred prompts, in MB, and how much more the last hundred prompts hold than the second."""
    hundreds = [memory[first : first + 100] for first in range(0, len(memory), 100)]
    found: dict[str, Any] = {
        "medians_of_hundreds": [round(statistics.median(part) / 1e6, 1) for part in hundreds],
        "last": round(memory[-1] / 1e6, 1) if memory else 0,
        "largest": round(max(memory, default=0) / 1e6, 1),
    }
    if len(memory) >= 300:
        ratio = statistics.median(memory[-100:]) / statistics.median(memory[100:200])
        found["last_hundred_against_second_percent"] = round(100 * (ratio - 1), 2)
    return found


def run_prompt(server: ComfyUI, prompt: Prompt) -> str | None:
    """Run one prompt to its end and take away its files; what was wrong, if anything."""
    try:
        name = server.queue(prompt.nodes)
        if prompt.interrupted:
            _interrupt(server, name)
        entry = server.wait(name, _LIMIT)
    except (ValueError, TimeoutError) as error:
        return str(error)
    if prompt.interrupted:
        return None if messages(entry, "execution_interrupted") else f"not interrupted: {entry['status']}"
    if entry["status"]["status_str"] != "success":
        return "; ".join(str(body["exception_message"]) for body in messages(entry, "execution_error"))
    paths = sorted(path for path in (server.base / "output").rglob("*") if path.is_file())
    if len(paths) != prompt.files:
        return f"{len(paths)} files instead of {prompt.files}"
    for path in paths:
        try:
            _open(path)
        except (OSError, ValueError) as error:
            return f"{path.name}: {error}"
        path.unlink()
    return None


def _interrupt(server: ComfyUI, prompt_id: str) -> None:
    """Interrupt a prompt once it runs, some way into it."""
    end = time.monotonic() + _LIMIT
    while not server.is_running(prompt_id):
        if time.monotonic() > end:
            raise TimeoutError(f"prompt {prompt_id} did not begin in {_LIMIT:.0f} s")
        time.sleep(0.1)
    time.sleep(int(prompt_id[:2], 16) / 100)
    server.request("/interrupt", {"prompt_id": prompt_id})


def _open(path: Path) -> None:
    """Read a file as the outside world would; raises where it is not whole."""
    if path.suffix == ".ply":
        read_ply(path.read_bytes())
    elif "depth" in path.name:
        read_depth(path)
    else:
        read_picture(path)


def prepare(base: Path) -> tuple[str, ...]:
    """Conversions of the built-in model and a LoRA of random weights, where ComfyUI looks for them."""
    nano, folder = PACK / "models" / "nano", base / "models"
    for name in ("diffusion_models", "loras"):
        (folder / name).mkdir(exist_ok=True)
    names = [f"nano-{to}.safetensors" for to in _CONVERSIONS]
    for to, name in zip(_CONVERSIONS, names, strict=True):
        convert_model(nano, folder / "diffusion_models" / name, to=to)
    weights = load_file(nano / "model.safetensors")
    noise = torch.Generator().manual_seed(0)
    lora = {}
    for layer in ("single_blocks.0.linear1", "double_blocks.0.img_attn.qkv"):
        rows, columns = weights[f"dit.{layer}.weight"].shape
        lora[f"diffusion_model.{layer}.lora_A.weight"] = torch.randn(8, columns, generator=noise) / 10
        lora[f"diffusion_model.{layer}.lora_B.weight"] = torch.randn(rows, 8, generator=noise) / 10
    save_file(lora, folder / "loras" / LORA)
    return tuple(names)


def main() -> int:
    """Run from the command line; the exit code is 1 where a prompt failed."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("comfyui", type=Path, help="ComfyUI's folder")
    parser.add_argument("--python", type=Path, help="its Python (default: that of its .venv)")
    parser.add_argument("--count", type=int, default=500, help="prompts")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="start no prompt after so many")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="write the figures here")
    options = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="mforce-soak-") as folder,
        ComfyUI(options.comfyui.expanduser().resolve(), Path(folder), options.python) as server,
    ):
        server.wait_until_ready()
        figures = soak(server, options.count, options.seed, options.seconds, options.json)
    failures = figures["failures"]
    print(f"{figures['prompts']} prompts, {figures['interrupted']} of them interrupted: {len(failures)} failures.")
    print(json.dumps(figures["resident_megabytes"], indent=1))
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
