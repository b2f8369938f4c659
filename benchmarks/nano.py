"""Time and memory of the built-in model: ``python -m mforce.benchmarks.nano [--out FILE.json]``.

Measures, on this machine: a joint rollout (50 steps, CFG 4, 128x128) with decoding, its peak memory, and the peak
memory of loading a large checkpoint relative to the file (weights touched, in a process of its own).
"""

import argparse
import json
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from ..mforce_core import load_autoencoder, load_model, load_text_encoder, sample
from ..mforce_core.model.config import Architecture
from ..mforce_core.model.tokens import tokens_to_latents
from ..mforce_core.model.transformer import ModalityForcingTransformer
from ..mforce_core.release import LOG2_ALPHA, NANO_SIZE, PATCH_SIZE
from ..mforce_core.weights.checkpoint import save_model
from .process_memory import status_bytes

NANO = Path(__file__).parent.parent / "models" / "nano"
GRID = (NANO_SIZE // PATCH_SIZE, NANO_SIZE // PATCH_SIZE)

_LOAD = """
import re, sys
from mforce.mforce_core import load_model

def peak():  # ru_maxrss would count the parent process too
    return 1024 * int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1])

before = peak()
model = load_model(sys.argv[1])
sum(float(p.sum()) for p in model.parameters())
print(peak() - before)
"""


def joint_seconds(device: str, repeats: int) -> list[float]:
    """Wall seconds of text to image and depth, loading left out; the first run warms up and is not counted."""
    model, text_encoder = load_model(NANO, device=device, dtype=torch.float32), load_text_encoder(NANO)
    autoencoder = load_autoencoder(NANO, device=device)
    text, null = text_encoder.encode(["a red sphere on a wooden floor"]), text_encoder.encode([""])
    seconds = []
    for _ in range(repeats + 1):
        started = time.perf_counter()
        rgb, _ = sample(model, text, GRID, mode="joint", log2_alpha=LOG2_ALPHA, null_text=null)
        autoencoder.decode(tokens_to_latents(rgb, GRID)).cpu()
        seconds.append(time.perf_counter() - started)
    return seconds[1:]


def load_ratio() -> dict[str, float]:
    """Peak memory of a load over the size of the file, for a model of about half a gigabyte in bfloat16."""
    sizes = Architecture(hidden_size=1024, num_heads=8, depth_double=2, depth_single=6, depth_decoder_num_layers=2)
    with tempfile.TemporaryDirectory() as folder:
        save_model(ModalityForcingTransformer(sizes), folder)
        size = (Path(folder) / "model.safetensors").stat().st_size
        run = subprocess.run([sys.executable, "-c", _LOAD, folder], capture_output=True, text=True, check=True)
    return {"file_bytes": size, "peak_over_file": int(run.stdout) / size}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    seconds = joint_seconds(args.device, args.repeats)
    peak = status_bytes("VmHWM")
    result = {
        "device": torch.cuda.get_device_name() if args.device.startswith("cuda") else platform.processor() or "cpu",
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "joint_50_steps_cfg_seconds": statistics.median(seconds),
        "joint_runs": seconds,
        "peak_memory_bytes": peak,
        "load": load_ratio(),
    }
    text = json.dumps(result, indent=1)
    print(text)
    if args.out is not None:
        args.out.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
