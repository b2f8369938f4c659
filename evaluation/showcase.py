"""Pictures of a small model for the documentation, made again by one command: ``python -m mforce.evaluation.showcase``.

The seeds are counted, not chosen: the samples have the seeds 0 to 31 and the captions of the first 32 held-out scenes,
and the picture at the top of the README has the seeds 0 and 1.
"""

import argparse
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from PIL import Image

from ..mforce_core import Pipeline
from ..mforce_core.depth.preview import depth_preview
from ..mforce_core.inputs import Given
from ..mforce_core.release import CFG, LOG2_ALPHA, STEPS
from ..mforce_core.results.contact_sheet import stack
from ..scenes import captions, sample_layouts

DOCS = Path(__file__).parent.parent / "docs"
SAMPLES, BATCH = 32, 8
#: The held-out scenes of the evaluation.
CAPTION_SEED = 1_000_000
DEMO = ("a large red cube on a checkered floor", "a purple cylinder and a yellow sphere on a tiled floor")

_GAP, _COLUMNS = 4, 4
_PAGE = """# Samples of nano

Samples with the seeds 0 to {last}, none of them picked: text → RGB + depth in {steps} steps with guidance
{cfg:g} and tilt {tilt:g}. The prompts are the captions of the first held-out scenes (seed {seed}). Beside each
picture is its depth, warm where near. `python -m mforce.evaluation.showcase` makes this page.

![Pictures and their depth](images/nano_samples.jpg)

| seed | prompt |
|---|---|
{rows}
"""


def sample_sheet(pipeline: Pipeline, prompts: list[str], steps: int) -> Image.Image:
    """Picture and depth of every prompt, in rows; prompt i with seed i."""
    jobs = [pipeline.job("joint", text, seed=seed, steps=steps, tilt=LOG2_ALPHA) for seed, text in enumerate(prompts)]
    pairs: list[np.ndarray] = []
    for start in range(0, len(jobs), BATCH):
        part = jobs[start : start + BATCH]
        for result in pipeline.generate(part, [Given()] * len(part)):
            colors = depth_preview(torch.from_numpy(result.depth)[None])[0]
            pairs.append(np.concatenate((result.image, colors), axis=1))
    height, width = pairs[0].shape[:2]
    rows = -(-len(pairs) // _COLUMNS)
    sheet = Image.new("RGB", (_COLUMNS * (width + _GAP) - _GAP, rows * (height + _GAP) - _GAP), (255, 255, 255))
    for index, pair in enumerate(pairs):
        row, column = divmod(index, _COLUMNS)
        sheet.paste(Image.fromarray(pair), (column * (width + _GAP), row * (height + _GAP)))
    return sheet


def demo_sheet(pipeline: Pipeline, steps: int) -> Image.Image:
    """The sheets of two results below one another, with the seeds 0 and 1."""
    sheets = []
    for seed, text in enumerate(DEMO):
        result = pipeline.joint(text, seed=seed, steps=steps, refine_depth=True)
        with TemporaryDirectory() as folder:
            saved = result.save(Path(folder) / "result")
            sheets.append(Image.open(saved / "sheet.png").convert("RGB"))
    return stack(sheets)


def write(pipeline: Pipeline, docs: Path, *, steps: int = STEPS, samples: int = SAMPLES) -> None:
    """The page of samples with its picture, and the picture of the README."""
    prompts = captions(sample_layouts(samples, CAPTION_SEED))
    (docs / "images").mkdir(parents=True, exist_ok=True)
    sample_sheet(pipeline, prompts, steps).save(docs / "images" / "nano_samples.jpg", quality=88)
    rows = "\n".join(f"| {seed} | {text} |" for seed, text in enumerate(prompts))
    page = _PAGE.format(last=samples - 1, steps=steps, tilt=LOG2_ALPHA, cfg=CFG["joint"], seed=CAPTION_SEED, rows=rows)
    (docs / "nano-samples.md").write_text(page, encoding="utf-8")
    demo_sheet(pipeline, steps).save(docs / "images" / "demo.png", optimize=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, help="another model than the built-in one")
    parser.add_argument("--text-encoder", type=Path)
    parser.add_argument("--vae", type=Path)
    parser.add_argument("--docs", type=Path, default=DOCS, help="folder to write to (default: the documentation)")
    args = parser.parse_args()
    parts = {"text_encoder": args.text_encoder, "vae": args.vae}
    write(Pipeline.load(args.model or "nano", **parts, device="cpu"), args.docs)
    print(args.docs / "nano-samples.md")


if __name__ == "__main__":
    main()
