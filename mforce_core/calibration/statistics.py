"""What errors of a model's weights cost, by what its layers receive and how much predictions hang on their outputs.

While the model runs on samples of its own (see :mod:`.samples`),

- every Linear's inputs x give their mean second moment, E[x x^T];
- random sums of both predictions, velocity and clean depth, are differentiated by every Linear's outputs, whose mean
  squares say how much a change of an output changes the predictions. Both are of about unit size and count alike.

The two are a Kronecker-factored Fisher matrix (K-FAC, Martens and Grosse, arXiv 1503.05671) whose factor of the outputs
is diagonal.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from ..conversion.weighted_svd import ErrorMetric
from ..model.transformer import ModalityForcingTransformer
from ..release import GUIDANCE
from .samples import CalibrationSample

#: Bytes of second moments that are held at a time. What is more takes further passes over the samples.
_MEMORY = 8 << 30


class Calibration:
    """The metrics of a model's layers, gathered when one of them is asked for.

    Args:
        model: on its device.
        samples: inputs that it is run on.
        grid: (h, w) tokens of a picture.
        memory: bytes of second moments that are held at a time.
        progress: called with (samples done, all of them); what it raises ends the run.
    """

    def __init__(
        self,
        model: ModalityForcingTransformer,
        samples: Sequence[CalibrationSample],
        grid: tuple[int, int],
        *,
        memory: int = _MEMORY,
        progress: Callable[[int, int], None] | None = None,
    ) -> None:
        self.model, self.samples, self.grid, self.progress = model, samples, grid, progress
        self.device = next(model.parameters()).device
        self._layers = {name: layer for name, layer in model.named_modules() if isinstance(layer, nn.Linear)}
        self._groups = _grouped({name: layer.in_features for name, layer in self._layers.items()}, memory)
        self._moments: dict[str, Tensor] = {}
        self._sensitivities: dict[str, Tensor] = {}

    def metric(self, name: str) -> ErrorMetric | None:
        """The metric of a weight; None where it is no layer's, or where nothing reached the layer."""
        layer = name.removesuffix(".weight")
        if layer not in self._layers:
            return None
        if not self._sensitivities:
            self._sensitivities = self._gather_sensitivities()
        if layer not in self._moments:
            self._moments.clear()  # before the next ones take memory
            self._moments = self._gather_moments(next(group for group in self._groups if layer in group))
        moment = self._moments[layer]
        return ErrorMetric(moment, self._sensitivities[layer]) if moment.any() else None

    def _gather_moments(self, group: Sequence[str]) -> dict[str, Tensor]:
        """Mean second moments of some layers' inputs."""
        sizes = {name: self._layers[name].in_features for name in group}
        moments = {name: torch.zeros(size, size, device=self.device) for name, size in sizes.items()}
        rows = dict.fromkeys(group, 0)

        def see(name: str, inputs: Tensor, output: Tensor) -> None:
            x = inputs.flatten(0, -2).float()
            moments[name].addmm_(x.T, x)
            rows[name] += len(x)

        with torch.no_grad():
            self._run(group, see, lambda *_: None)
        return {name: moment / max(rows[name], 1) for name, moment in moments.items()}

    def _gather_sensitivities(self) -> dict[str, Tensor]:
        """Mean squares of the predictions' derivatives by every layer's outputs."""
        sizes = {name: layer.out_features for name, layer in self._layers.items()}
        squares = {name: torch.zeros(size, device=self.device) for name, size in sizes.items()}
        generator = torch.Generator().manual_seed(0)

        def see(name: str, inputs: Tensor, output: Tensor) -> None:
            def add(gradient: Tensor) -> None:
                squares[name] += gradient.float().flatten(0, -2).square().sum(0)

            if not output.requires_grad:  # no weight is trained: what nothing comes before is where gradients end
                output.requires_grad_()
            output.register_hook(add)

        def differentiate(mode: str, predictions: Sequence[Tensor]) -> None:
            # With normal factors the expected square of a sum's derivative is the sum of all predictions' squares.
            total = torch.zeros((), device=self.device)
            for prediction, given in zip(predictions, ("i2d", "d2i"), strict=True):
                if mode != given:  # else nobody asks for it
                    factors = torch.randn(prediction.shape, generator=generator).to(self.device)
                    total = total + (prediction.float() * factors).sum()
            total.backward()

        with torch.enable_grad():
            self._run(list(self._layers), see, differentiate)
        pictures = sum(len(sample.rgb) for sample in self.samples)
        return {name: total / pictures for name, total in squares.items()}

    def _run(
        self,
        layers: Sequence[str],
        see: Callable[[str, Tensor, Tensor], None],
        use: Callable[[str, Sequence[Tensor]], None],
    ) -> None:
        """Run on every sample; ``see`` gets what these layers receive and give, ``use`` the predictions."""
        handles = [
            self._layers[name].register_forward_hook(lambda _, given, output, name=name: see(name, given[0], output))
            for name in layers
        ]
        try:
            for number, sample in enumerate(self.samples):
                if self.progress is not None:
                    self.progress(number, len(self.samples))
                mode, *inputs = sample
                rgb, depth, text, *times = (tensor.to(self.device) for tensor in inputs)
                embeds = self.model.config.use_guidance_embed
                guidance = torch.full((len(rgb),), GUIDANCE, device=self.device) if embeds else None
                use(mode, self.model(rgb, depth, text, *times, self.grid, guidance))
        finally:
            for handle in handles:
                handle.remove()
        if self.progress is not None:
            self.progress(len(self.samples), len(self.samples))


def _grouped(inputs: Mapping[str, int], memory: int) -> list[list[str]]:
    """Layers in their order, in groups whose second moments fit into the memory, or of one."""
    groups: list[list[str]] = []
    left = 0
    for name, size in inputs.items():
        moment = 4 * size**2
        if not groups or moment > left:
            groups.append([])
            left = memory
        groups[-1].append(name)
        left -= moment
    return groups
