"""A custom node without nodes: what a ComfyUI process holds, asked over HTTP by :mod:`.soak_memory`.

It is linked into the custom nodes of the server under test and imports nothing of the pack.
"""

from __future__ import annotations

import ctypes
import gc
import sys
import tracemalloc
from collections import Counter
from pathlib import Path
from typing import Any

from aiohttp import web
from server import PromptServer

NODE_CLASS_MAPPINGS: dict[str, type] = {}

_LIBC = ctypes.CDLL("libc.so.6")


class _MallInfo(ctypes.Structure):
    """glibc's ``struct mallinfo2``."""

    _names = ("arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost")
    _fields_ = [(name, ctypes.c_size_t) for name in _names]


_LIBC.mallinfo2.restype = _MallInfo


def _resident() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmRSS"))


def _deep_size(value: Any, seen: set[int]) -> int:
    """Bytes of a value of JSON's types and of all that it holds."""
    if id(value) in seen:
        return 0
    seen.add(id(value))
    size = sys.getsizeof(value)
    if isinstance(value, dict):
        size += sum(_deep_size(key, seen) + _deep_size(entry, seen) for key, entry in value.items())
    elif isinstance(value, (list, tuple, set, frozenset)):
        size += sum(_deep_size(entry, seen) for entry in value)
    return size


def _cache_keys() -> dict[str, int]:
    """Keys that the cache of outputs keeps, how many of them have an output, and the bytes of all."""
    caches = [entry for entry in gc.get_objects() if type(entry).__name__ == "RAMPressureCache"]
    keys = {key for cache in caches for key in (*cache.used_generation, *cache.timestamps)}
    seen: set[int] = set()
    return {
        "keys": len(keys),
        "with_output": sum(len(cache.cache) for cache in caches),
        "bytes": sum(_deep_size(key, seen) for key in keys),
    }


def _owner(filename: str) -> str:
    """Whose code allocated something."""
    path = filename.replace("\\", "/")
    for part, owner in (
        ("/modality-forcing/", "pack"),
        ("/site-packages/", ""),
        ("/lib/python3", "python"),
        ("<", "python"),
    ):
        if part in path:
            return owner or path.split(part)[1].split("/")[0]
    return f"comfyui/{Path(path).name}"


def _traced() -> dict[str, int]:
    if not tracemalloc.is_tracing():
        return {}
    held: Counter[str] = Counter()
    for entry in tracemalloc.take_snapshot().statistics("filename"):
        held[_owner(entry.traceback[0].filename)] += entry.size
    return dict(held)


@PromptServer.instance.routes.post("/memory_probe")
async def probe(request: web.Request) -> web.Response:
    """Figures in bytes; first does what ``do`` names: collect, trim or clear."""
    do = (await request.json()).get("do", [])
    if "trace" in do:
        tracemalloc.start()
    if "clear" in do:
        PromptServer.instance.prompt_queue.wipe_history()
    if "collect" in do:
        gc.collect()
    if "trim" in do:
        _LIBC.malloc_trim(0)
    heap = _LIBC.mallinfo2()
    objects = Counter(f"{type(entry).__module__}.{type(entry).__qualname__}" for entry in gc.get_objects())
    return web.json_response(
        {
            "resident": _resident(),
            "in_use": heap.uordblks + heap.hblkhd,
            "free": heap.fordblks,
            "history": _deep_size(PromptServer.instance.prompt_queue.history, set()),
            "cache_keys": _cache_keys(),
            "prompts": len(PromptServer.instance.prompt_queue.history),
            "python_blocks": sys.getallocatedblocks(),
            "objects": dict(objects.most_common(60)),
            "traced": _traced(),
        }
    )
