"""A look at samples that training never sees: AbsRel of image to depth, the RGB loss, and a sheet of pictures."""

from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..evaluation.metrics import abs_rel, align_median, delta1
from ..mforce_core import decode_depth, encode_depth, load_autoencoder, sample
from ..mforce_core.depth.codec import valid_pixels
from ..mforce_core.depth.preview import depth_preview
from ..mforce_core.model.config import ConfigError
from ..mforce_core.model.tokens import latents_to_tokens, patches_to_tokens, tokens_to_latents, tokens_to_patches
from ..mforce_core.model.transformer import ModalityForcingTransformer
from ..mforce_core.release import GUIDANCE, LOG2_ALPHA
from ..mforce_core.sampling.path_spec import PathSpec
from .batches import Source
from .config import TrainConfig
from .heldout_loss import HeldOutLoss
from .log import Log
from .processes import Processes
from .source import open_source

#: In the run's folder.
SHEETS = "samples"

#: Samples that the sheet shows; the others are only measured.
_SHOWN = 8

#: Samples that are denoised together.
_TOGETHER = 32


class HeldOut:
    """The same samples, prompts and noise at every look."""

    def __init__(self, config: TrainConfig, source: Source, null_text: Tensor, processes: Processes) -> None:
        assert config.heldout is not None
        self.every = config.heldout.every
        self.student = config.distillation if config.stage == "distill" else None
        self.guidance = GUIDANCE if config.sizes().use_guidance_embed else None
        self.steps = config.heldout.sampling_steps if self.student is None else self.student.steps
        self.settings, self.processes, self.folder = config.heldout, processes, config.out / SHEETS
        count = self.settings.samples
        rgb, depth, self.text = source.batch(0, slice(0, count))
        if depth is None:
            raise ConfigError(f"heldout.latents: {self.settings.latents} has no depth")
        self.latents, self.depth, self.null_text = rgb, depth, null_text
        picture = self.settings.autoencoder
        self.autoencoder = None if picture is None else load_autoencoder(picture, device=processes.device)
        # A student of few steps predicts no velocity to measure.
        self.rgb = None if self.student else HeldOutLoss(self.settings, source, null_text, processes)

    def look(self, model: ModalityForcingTransformer, step: int, log: Log | None) -> None:
        """All processes sample together; the first one, which has a log, keeps the results."""
        depths = [self._predicted(model, rows).cpu() for rows in torch.arange(len(self.depth)).split(_TOGETHER)]
        shown = self._shown(model)
        rgb = {} if self.rgb is None else self.rgb.measure(model)
        if log is None:
            return
        predicted = torch.cat(depths)
        known = torch.where(valid_pixels(self.depth), self.depth, torch.nan)
        aligned = align_median(predicted, known)
        measures = {"heldout_absrel": abs_rel(aligned, known), "heldout_delta1": delta1(aligned, known)}
        spread = {"heldout_absrel_standard_error": _standard_error(measures["heldout_absrel"])}
        log.write(step, {name: float(values.mean()) for name, values in measures.items()} | spread | rgb)
        columns = [self._pictures(self.latents[:_SHOWN]), *map(_depth_pictures, (known[:_SHOWN], predicted[:_SHOWN]))]
        sheet = np.concatenate([np.concatenate(list(c), 0) for c in (*columns, *shown) if c is not None], 1)
        self._write(sheet, step)
        log.picture("given, depth, i2d, joint, joint depth, d2i", step, sheet)

    def _predicted(self, model: ModalityForcingTransformer, rows: Tensor) -> Tensor:
        """Depth (B, H, W) of the given images."""
        text = self.null_text.expand(len(rows), -1, -1)
        tokens = latents_to_tokens(self.latents[rows])
        run = partial(sample, grid=self._grid, steps=self.steps, seed=int(rows[0]), guidance=self.guidance)
        _, depth = run(model, text, mode="i2d", rgb=tokens)
        return decode_depth(tokens_to_patches(depth, self._grid))

    def _shown(self, model: ModalityForcingTransformer) -> list[np.ndarray | None]:
        """Columns of the sheet: joint image and depth, and the image made from the exact depth."""
        text, depth = self.text[:_SHOWN], self.depth[:_SHOWN]
        run = partial(sample, model, text, self._grid, null_text=self.null_text[None], guidance=self.guidance)
        run = partial(run, steps=self.steps)
        if self.student is None:
            rgb, joint = run(mode="joint", log2_alpha=LOG2_ALPHA)
        else:
            run = partial(run, cfg=1.0)
            rgb, joint = run(mode="joint", path=PathSpec.parse(self.student.path).build(self.steps, model.schedule))
        clean = patches_to_tokens(encode_depth(depth, patch_size=model.config.depth_patch_size))
        made, _ = run(mode="d2i", depth=clean)
        pictures = _depth_pictures(decode_depth(tokens_to_patches(joint, self._grid)).cpu())
        images, remade = (self._pictures(tokens_to_latents(tokens, self._grid)) for tokens in (rgb, made))
        return [images, pictures, remade]

    @property
    def _grid(self) -> tuple[int, int]:
        return self.latents.shape[2], self.latents.shape[3]

    def _pictures(self, latents: Tensor) -> np.ndarray | None:
        """(B, H, W, 3) uint8, the size of the depth; None without an autoencoder."""
        if self.autoencoder is None:
            return None
        images = self.autoencoder.decode(latents.to(self.processes.device)).float().clamp(-1, 1).cpu() / 2 + 0.5
        images = torch.nn.functional.interpolate(images, self.depth.shape[1:], mode="area")
        return (images * 255).round().byte().permute(0, 2, 3, 1).numpy()

    def _write(self, sheet: np.ndarray, step: int) -> None:
        self.folder.mkdir(exist_ok=True)
        Image.fromarray(sheet).save(self.folder / f"step-{step:07d}.png")


def open_heldout(config: TrainConfig, null_text: Tensor, processes: Processes) -> HeldOut | HeldOutLoss | None:
    """What measures a run as it goes: depth or, for text to image, the loss; None where nothing is asked for."""
    if config.heldout is None:
        return None
    update = {"source": "encoded", "latents": config.heldout.latents, "mixture": (), "on_device": False}
    data = config.data.model_copy(update=update)
    other = config.model_copy(update={"data": data, "batch_size": config.heldout.samples})
    source = open_source(other, depth=config.has_depth, device=processes.device)
    if config.stage == "t2i":
        return HeldOutLoss(config.heldout, source, null_text, processes)
    return HeldOut(config, source, null_text, processes)


def _standard_error(values: Tensor) -> float:
    """Of the mean over samples; a run with another seed differs by more than this tells."""
    return float(values.std(correction=0)) / len(values) ** 0.5


def _depth_pictures(depth: Tensor) -> np.ndarray:
    """(B, H, W, 3) uint8 colors of depth (B, H, W), black where unknown."""
    return depth_preview(depth, missing=(0, 0, 0))


def sheets(folder: Path) -> list[Path]:
    """Sheets of a run, oldest first."""
    return sorted((folder / SHEETS).glob("step-*.png"))
