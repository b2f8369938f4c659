"""The model at one step of a rollout, with guidance, and as a CUDA graph where that is wanted."""

from collections import OrderedDict
from collections.abc import Hashable
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from ...kernels import current_request
from ..model.transformer import ModalityForcingTransformer, Modulations
from .cuda_graph import Replay, graph_of
from .guidance import Prediction, guided

#: Graphs that a model keeps: a joint rollout and the pass without guidance that refines its depth take one each.
_KEPT = 2

_graphs: "WeakKeyDictionary[ModalityForcingTransformer, OrderedDict[Hashable, Replay]]" = WeakKeyDictionary()


def kept_graphs(model: ModalityForcingTransformer) -> list[Replay]:
    """Graphs of a model's steps, the least recently used first."""
    return list(_graphs.get(model, {}).values())


class Denoiser:
    """The model with what all steps of a rollout share: text, guidance scale, grid.

    Without ``null_text`` a step is one denoiser call; with it one call on a batch of two, the prompt's half first, and
    classifier-free guidance.

    Args:
        text: (B, T, context_in_dim) on the model's device.
        null_text: features of the empty string, text's shape, or None.
        grid: (h, w) tokens.
        cfg: guidance scale; only with ``null_text``.
        cuda_graph: launch every step after the first as one CUDA graph, or every one where an earlier rollout of this
            shape left its graph; weights may change in place between rollouts.
    """

    def __init__(
        self,
        model: ModalityForcingTransformer,
        text: Tensor,
        null_text: Tensor | None,
        grid: tuple[int, int],
        cfg: float,
        *,
        cuda_graph: bool = False,
    ) -> None:
        self.model, self.grid, self.wants_graph = model, grid, cuda_graph
        texts = (text,) if null_text is None else (text, null_text)
        self.halves = len(texts)
        self.text = torch.cat([half.to(model.compute_dtype) for half in texts])
        self.scale = torch.tensor(cfg, dtype=torch.float32, device=text.device)

    def __call__(self, rgb: Tensor, depth: Tensor, modulations: Modulations) -> Prediction:
        """Predict from tokens (B, N, Cin) and (B, N, Cd) of any float type, and the modulations of one step."""
        inputs = (self.text, self.scale, rgb, depth, *modulations)
        if not self.wants_graph:
            return self._predict(*inputs)
        kept = _graphs.setdefault(self.model, OrderedDict())
        key = self._key(inputs)
        if key in kept:
            kept.move_to_end(key)
            return Prediction(*kept[key](*inputs))
        prediction = self._predict(*inputs)
        while len(kept) >= _KEPT:  # before the next one takes memory
            kept.popitem(last=False)
        replay = graph_of(self._predict, inputs)
        if replay is None:
            self.wants_graph = False
        else:
            kept[key] = replay
        return prediction

    def _key(self, inputs: tuple[Tensor | None, ...]) -> Hashable:
        """All that a graph has fixed: shapes, addresses of the weights, and the back ends that were asked for."""
        weights = tuple(weight.data_ptr() for weight in self.model.parameters())
        shapes = tuple(None if value is None else (value.shape, value.dtype, value.device) for value in inputs)
        return self.grid, self.halves, shapes, weights, current_request()

    def _predict(
        self, text: Tensor, scale: Tensor, rgb: Tensor, depth: Tensor, *modulations: Tensor | None
    ) -> Prediction:
        rgb, depth = rgb.repeat(self.halves, 1, 1), depth.repeat(self.halves, 1, 1)
        velocity, depth_x0 = self.model(rgb, depth, text, None, None, self.grid, modulations=Modulations(*modulations))  # type: ignore[arg-type]
        predicted = Prediction(velocity.float(), depth_x0.float())
        if self.halves == 1:
            return predicted
        conditional, unconditional = zip(*(part.chunk(2) for part in predicted), strict=True)
        return guided(Prediction(*conditional), Prediction(*unconditional), scale)
