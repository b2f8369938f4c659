"""The RGB loss of samples that training never sees, for the text-to-image stage."""

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

    @torch.no_grad()
    def look(self, model: ModalityForcingTransformer, step: int, log: Log | None) -> None:
        """All processes compute; the first one, which has a log, keeps ``heldout_rgb`` and its standard error."""
        errors = torch.stack([self._errors(model, level) for level in range(_LEVELS)]).mean(0)
        if log is not None:
            spread = float(errors.std(correction=0)) / len(errors) ** 0.5
            log.write(step, {"heldout_rgb": float(errors.mean()), "heldout_rgb_standard_error": spread})

    def _errors(self, model: ModalityForcingTransformer, level: int) -> Tensor:
        """(samples,) with one noise level drawn for each."""
        parts = []
        for start in range(0, self.samples, _TOGETHER):
            rows = range(start, min(start + _TOGETHER, self.samples))
            draws = RowDraws(0, level, rows)
            encoded = self.source.batch(0, slice(rows.start, rows.stop))._replace(depth=None)
            batch = prepare(encoded, self.null_text, 0.0, RecipeConfig(), 0, draws)
            noise = to(draw_noise(batch, RecipeConfig(), draws), self.processes.device)
            batch = to(batch, self.processes.device)
            velocity = predict(model, None, batch, noise).velocity
            parts.append(squared_error(velocity, noise.rgb - batch.rgb).cpu())
        return torch.cat(parts)
