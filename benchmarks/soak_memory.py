"""Whose the memory is that grows while prompts are run: ``python -m mforce.benchmarks.soak_memory ~/ComfyUI``.

Phases of prompts as in :mod:`.soak` alternate with phases of prompts of core nodes alone, as many nodes each, in one
server. After each phase, which ends with the same core prompt, a probe in the server reports resident memory, what the
C heap has in use and what it holds free, the size of the history of prompts and of the keys of cached outputs, and with
``--trace`` the bytes that Python code of each owner holds. At the end free memory is given back and the history is
cleared, and each step is measured.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

from .comfyui_server import PACK, ComfyUI
from .soak import prepare, run_prompt
from .soak_prompts import Prompt, draw

#: Nodes of a core prompt, about as many as one of the soak has.
_NODES = 13
#: Numbers of core prompts that differ by this have pictures of the same sizes.
_SAME_SIZES = 21
#: Owners and types that are printed.
_LISTED = 12


def core_prompt(number: int) -> Prompt:
    """A prompt of core nodes alone: a chain of operations on a small picture, which is saved."""
    prompt = Prompt({"task": "core"}, interrupted=False)
    picture = prompt.add("EmptyImage", width=128, height=96, batch_size=1 + number % 3, color=number)
    for step in range(_NODES - 2):
        if step % 2:
            picture = prompt.add("ImageInvert", image=[picture, 0])
        else:
            size = {"width": 96 + 8 * (number % 7), "height": 96, "crop": "disabled"}
            picture = prompt.add("ImageScale", image=[picture, 0], upscale_method="bilinear", **size)
    prompt.add("SaveImage", images=[picture, 0], filename_prefix="soak/core")
    prompt.files = 1 + number % 3
    return prompt


def probe(server: ComfyUI, *do: str) -> dict[str, Any]:
    """What the server holds, after it did what is asked."""
    status, figures = server.request("/memory_probe", {"do": do})
    if status != 200:
        raise ValueError(f"the probe answered {status}: {str(figures)[:300]}")
    return dict(figures)


def run_phases(server: ComfyUI, length: int, pairs: int, seed: int, *, trace: bool) -> list[dict[str, Any]]:
    """Probes of a warm-up, of phases of ``length`` prompts, and of each way to give memory back.

    Raises:
        ValueError: a prompt failed.
    """
    models = prepare(server.base)
    numbers = {"pack": 0, "core": 0}
    found: list[dict[str, Any]] = []

    def phase(name: str, kind: str) -> None:
        for number in range(numbers[kind], numbers[kind] + length):
            run(draw(seed, number, models) if kind == "pack" else core_prompt(number))
        numbers[kind] += length
        # Every probe finds outputs of the same sizes cached, which are not those of the phase before.
        run(core_prompt(_SAME_SIZES * (1000 + len(found))))
        note(name, "collect")

    def run(prompt: Prompt) -> None:
        problem = run_prompt(server, prompt)
        if problem is not None:
            raise ValueError(f"{prompt.kinds}: {problem}")

    def note(name: str, *do: str) -> None:
        found.append({"phase": name, **probe(server, *do)})
        print(name, round(found[-1]["resident"] / 1e6, 1), "MB", file=sys.stderr, flush=True)

    phase("warm-up", "pack")
    phase("warm-up", "core")
    if trace:
        note("tracing begins", "collect", "trace")
    for _ in range(pairs):
        phase("pack", "pack")
        phase("core", "core")
    note("free memory given back", "collect", "trim")
    note("history cleared", "collect", "clear", "trim")
    return found


def growth(found: list[dict[str, Any]], kind: str) -> dict[str, Any]:
    """What the phases of a kind added, in MB for a hundred prompts and objects for one, largest first."""
    steps = [(a, b) for a, b in pairwise(found) if b["phase"] == kind]
    prompts = sum(b["prompts"] - a["prompts"] for a, b in steps)
    if not prompts:
        return {}

    def rate(name: str) -> float:
        return sum(b[name] - a[name] for a, b in steps) / prompts

    def rates(name: str, factor: float) -> dict[str, float]:
        keys = {key for _, b in steps for key in b[name]}
        # A type that has just entered the list of the largest says nothing.
        known = {key for key in keys if all(key in part[name] for pair in steps for part in pair)}
        grown = {key: factor * sum(b[name][key] - a[name][key] for a, b in steps) / prompts for key in known}
        largest = sorted(grown.items(), key=lambda item: -item[1])[:_LISTED]
        return {key: round(value, 3) for key, value in largest if value > 0}

    megabytes = {name: round(rate(name) / 1e4, 2) for name in ("resident", "in_use", "free", "history")}
    keys = rates("cache_keys", 1)
    return {
        "prompts": prompts,
        "megabytes_per_hundred": megabytes,
        "cache_keys_per_prompt": {name: keys.get(name, 0) for name in ("keys", "with_output", "bytes")},
        "python_blocks_per_prompt": round(rate("python_blocks"), 1),
        "objects_per_prompt": rates("objects", 1),
        "traced_megabytes_per_hundred": rates("traced", 1e-4),
    }


def report(found: list[dict[str, Any]], command: Mapping[str, Any]) -> dict[str, Any]:
    """The figures of a run."""
    names = ("phase", "prompts", "resident", "in_use", "free", "history", "cache_keys", "python_blocks")
    return {
        "command": dict(command),
        "pack": growth(found, "pack"),
        "core": growth(found, "core"),
        "phases": [{name: entry[name] for name in names} for entry in found],
    }


def main() -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("comfyui", type=Path, help="ComfyUI's folder")
    parser.add_argument("--python", type=Path, help="its Python (default: that of its .venv)")
    parser.add_argument("--length", type=int, default=50, help="prompts of a phase")
    parser.add_argument("--pairs", type=int, default=3, help="how often phases of pack and core alternate")
    parser.add_argument("--seed", type=int, default=2)
    parser.add_argument("--trace", action="store_true", help="also trace Python's memory, which takes some itself")
    parser.add_argument("--json", type=Path, help="write the figures here")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="mforce-soak-") as folder:
        custom_nodes = Path(folder) / "custom_nodes"
        custom_nodes.mkdir()
        (custom_nodes / "memory_probe.py").symlink_to(PACK / "benchmarks" / "memory_probe.py")
        root = options.comfyui.expanduser().resolve()
        with ComfyUI(root, Path(folder), options.python) as server:
            server.wait_until_ready()
            found = run_phases(server, options.length, options.pairs, options.seed, trace=options.trace)
    asked = {name: getattr(options, name) for name in ("length", "pairs", "seed", "trace")}
    figures = report(found, asked)
    text = json.dumps(figures, indent=1)
    if options.json is not None:
        options.json.write_text(text + "\n", encoding="utf-8")
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
