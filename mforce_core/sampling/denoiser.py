"""The model at one step of a rollout, with guidance, and as a CUDA graph where that is wanted."""

from collections import OrderedDict
from collections.abc import Hashable
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from ...kernels import current_request
from ..model.block_cache import BlockCache
from ..model.transformer import ModalityForcingTransformer, Modulations
from .cuda_graph import Replay, graph_of
from .guidance import Guidance, Prediction
from .schedule import Levels

#: Graphs that a model keeps: steps with guidance and steps without it take one each.
_KEPT = 2

_graphs: "WeakKeyDictionary[ModalityForcingTransformer, OrderedDict[Hashable, Replay]]" = WeakKeyDictionary()


def kept_graphs(model: ModalityForcingTransformer) -> list[Replay]:
    """Graphs of a model's steps, the least recently used first."""
    return list(_graphs.get(model, {}).values())


class Denoiser:
    """The model with what all steps of a rollout share: text, guidance, grid.

    A step without guidance is one call of the model; one with guidance is a call on a batch of two, the prompt's half
    first.

    Args:
        text: (B, T, context_in_dim) on the model's device.
        null_text: features of the empty string, text's shape; None where there is no guidance.
        grid: (h, w) tokens.
        cache: reuse of blocks between steps, of this rollout alone; it decides while the step runs, which no graph can.
        cuda_graph: launch every step after the first as one CUDA graph, or every one where an earlier rollout of this
            shape left its graph; weights may change in place between rollouts.
    """

    def __init__(
        self,
        model: ModalityForcingTransformer,
        text: Tensor,
        null_text: Tensor | None,
        grid: tuple[int, int],
        guidance: Guidance,
        *,
        cache: BlockCache | None = None,
        cuda_graph: bool = False,
    ) -> None:
        if cache is not None and cuda_graph:
            raise ValueError("a block cache and a CUDA graph exclude each other: leave one of them out")
        if cache is not None and not model.config.depth_double:
            raise ValueError("a block cache needs a model with double-stream blocks, and this one has none")
        self.cache = cache
        self.model, self.grid, self.guidance, self.wants_graph = model, grid, guidance, cuda_graph
        self.text = text.to(model.compute_dtype)
        self.texts = None if null_text is None else torch.cat((self.text, null_text.to(model.compute_dtype)))

    def __call__(
        self, rgb: Tensor, depth: Tensor, modulations: Modulations, *, levels: Levels, level: float
    ) -> Prediction:
        """Predict from tokens (B, N, Cin) and (B, N, Cd) of any float type, and the modulations of one step.

        Args:
            levels: noise levels of the two.
            level: that decides whether there is guidance.
        """
        if self.texts is None or not self.guidance.acts_at(level):
            return Prediction(*self._run(self.text, rgb, depth, *modulations))
        doubled = rgb.repeat(2, 1, 1), depth.repeat(2, 1, 1)
        parts = (part.chunk(2) for part in self._run(self.texts, *doubled, *modulations))
        conditional, unconditional = zip(*parts, strict=True)
        return self.guidance.combine(Prediction(*conditional), Prediction(*unconditional), rgb, levels.rgb)

    def _run(self, *inputs: Tensor | None) -> tuple[Tensor, ...]:
        """Both predictions for text, rgb, depth and modulations, by a graph where one is wanted and can be made."""
        if not self.wants_graph:
            return self._predict(*inputs)
        kept = _graphs.setdefault(self.model, OrderedDict())
        key = self._key(inputs)
        if key in kept:
            kept.move_to_end(key)
            return kept[key](*inputs)
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
        return self.grid, shapes, weights, current_request()

    def _predict(self, *inputs: Tensor | None) -> tuple[Tensor, ...]:
        text, rgb, depth, *rest = inputs
        modulations = Modulations(*rest)  # type: ignore[arg-type]
        velocity, depth_x0 = self.model(
            rgb, depth, text, None, None, self.grid, modulations=modulations, cache=self.cache
        )
        return velocity.float(), depth_x0.float()
