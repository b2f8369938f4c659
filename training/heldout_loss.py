"""The RGB loss of samples that training never sees, as text to image alone: a depth stream sees nothing but noise."""

import torch
from torch import Tensor

from ..mforce_core.model.transformer import ModalityForcingTransformer
from .batches import Source
from .config import HeldOutConfig, RecipeConfig
from .draws import RowDraws
from .log import Log
from .losses import predict, squared_error
from .noise import draw_noise
from .processes import Processes, to
from .recipe import prepare

#: Samples of one forward pass, and noise levels of every sample.
_TOGETHER, _LEVELS = 32, 4


class HeldOutLoss:
    """The same samples and noise at every look, whose spread says what the mean is worth."""

    def __init__(self, settings: HeldOutConfig, source: Source, null_text: Tensor, processes: Processes) -> None:
        self.every, self.samples = settings.every, settings.samples
        self.source, self.null_text, self.processes = source, null_text, processes

    def look(self, model: ModalityForcingTransformer, step: int, log: Log | None) -> None:
        """All processes compute; the first one, which has a log, keeps what was measured."""
        measured = self.measure(model)
        if log is not None:
            log.write(step, measured)

    @torch.no_grad()
    def measure(self, model: ModalityForcingTransformer) -> dict[str, float]:
        """``heldout_rgb`` and its standard error."""
        errors = torch.stack([self._errors(model, level) for level in range(_LEVELS)]).mean(0)
        spread = float(errors.std(correction=0)) / len(errors) ** 0.5
        return {"heldout_rgb": float(errors.mean()), "heldout_rgb_standard_error": spread}

    def _errors(self, model: ModalityForcingTransformer, level: int) -> Tensor:
        """(samples,) with one noise level drawn for each."""
        parts = []
        for start in range(0, self.samples, _TOGETHER):
            rows = range(start, min(start + _TOGETHER, self.samples))
            draws = RowDraws(0, level, rows)
            encoded = self.source.batch(0, slice(rows.start, rows.stop))
            # Depth that was measured nowhere is all noise.
            depth = torch.zeros_like(encoded.depth) if encoded.depth is not None and model.config.has_depth else None
            patch_size = model.config.depth_patch_size if depth is not None else 0
            batch = prepare(encoded._replace(depth=depth), self.null_text, 0.0, RecipeConfig(), patch_size, draws)
            noise = to(draw_noise(batch, RecipeConfig(), draws), self.processes.device)
            batch = to(batch, self.processes.device)
            velocity = predict(model, None, batch, noise).velocity
            parts.append(squared_error(velocity, noise.rgb - batch.rgb).cpu())
        return torch.cat(parts)
