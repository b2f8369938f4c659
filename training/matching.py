"""Distribution matching: where a student's steps land is to be distributed as where its guided teacher's path goes.

A critic, a second model, learns the student's own distribution. Where a step lands, noise is added; there the teacher
says which clean value belongs to the noisy one by its distribution, and the critic by the student's. The difference is
the direction in which the two distributions differ most, and the student's landing is moved against it: the gradient of
their Kullback-Leibler divergence, up to a factor (Yin et al., arXiv 2311.18828, and 2405.14867 for several steps).

A step of few ends at a noisy state, which is matched where it is, at noise levels of its own piece of the path alone
(Luo et al., arXiv 2503.06674): so the critic, which knows no more than the noise levels, sees one step's landings at
each of them. Both streams are matched together, each where it moves.
"""

import torch
from torch import Tensor

from ..mforce_core.sampling.solvers import Streams
from .config import RecipeConfig
from .denoisers import GuidedTeacher, ask, clean_values, landing_of
from .jumps import Jumps
from .losses import Denoiser, Totals, weighted_depth
from .recipe import Batch

#: Roughly the standard deviations of a pixel's clean values that are left open by noisy ones, of RGB and of depth.
_SCALES = (1.0, 0.25)

#: In place of a zero that is divided by: where a stream stays, which has no loss, or two models agree.
_TINY = 1e-6


class Matching:
    """From a step's landing to the losses of student and critic, each of which reaches its own weights alone.

    Args:
        teacher: the frozen model.
        critic: starts as the teacher, without guidance, and is trained.
        recipe: weights of depth.
        weight: of the student's losses.
    """

    def __init__(self, teacher: GuidedTeacher, critic: Denoiser, recipe: RecipeConfig, weight: float) -> None:
        self.teacher, self.critic, self.recipe, self.weight = teacher, critic, recipe, weight

    def __call__(
        self, batch: Batch, jumps: Jumps, totals: Totals, state: Streams, raw: tuple[Tensor, Tensor]
    ) -> dict[str, Tensor]:
        """This batch's share of the losses of a step.

        Args:
            state: at the start of the jumps.
            raw: the student's predictions there, with their gradient.
        """
        assert jumps.noised is not None
        assert jumps.noise_rgb is not None
        assert jumps.noise_depth is not None
        start, end, high = jumps.levels[:, 0], jumps.levels[:, -1], jumps.noised
        landing, own = landing_of(raw, state, start, end), clean_values(raw, state, start)
        there, noise = Streams(*(x.detach() for x in landing)), Streams(jumps.noise_rgb, jumps.noise_depth)
        noisy = Streams(*(add_noise(*part) for part in zip(there, noise, end.unbind(1), high.unbind(1), strict=True)))
        with torch.no_grad():
            wanted = clean_values(self.teacher(batch, jumps, noisy, high), noisy, high)
        found = clean_values(ask(self.critic, noisy, batch.text, high, batch.grid, jumps.scale), noisy, high)

        terms = {}
        for index, name in enumerate(Streams._fields):
            low, above = end[:, index], high[:, index]
            moves = (low < start[:, index]) & (low < above)
            factor = self.recipe.depth_loss_weight if name == "depth" else 1.0
            against = direction(found[index].detach(), wanted[index], own[index].detach())
            # Its gradient at the landing is the direction.
            matched = 0.5 * (landing[index] - (there[index] - against)).square().mean((1, 2))
            terms[f"matching_{name}"] = self.weight * factor * (matched * moves).sum() / totals.rows
            part = (found[index], noisy[index], there[index], noise[index])
            error = denoising_error(*part, low, above, _SCALES[index])
            if name == "depth":
                error = weighted_depth(error, own.depth.detach(), above, self.recipe.depth_weighting)
            else:
                error = error / above.clamp(min=_TINY)[:, None, None]  # that of the velocity
            terms[f"critic_{name}"] = factor * (error.square().mean((1, 2)) * moves).sum() / totals.rows
        return terms


def spread(low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    """Factors (B, 1, 1) of a stream at level s and of new noise that bring it to tau >= s, as restarts of a path do:
    ``x_tau = a x_s + b eps`` with ``a = (1 - tau) / (1 - s)`` and ``b^2 = tau^2 - a^2 s^2``."""
    low, high = low[:, None, None], high[:, None, None]
    kept = torch.where(high > low, (1 - high) / (1 - low).clamp(min=_TINY), 1)
    return kept, (high.square() - (kept * low).square()).clamp(min=0).sqrt()


def add_noise(x: Tensor, noise: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """A stream (B, N, C) from noise levels (B,) to higher ones; see :func:`spread`."""
    kept, added = spread(low, high)
    return kept * x + added * noise


def direction(critic: Tensor, teacher: Tensor, own: Tensor) -> Tensor:
    """Of a sample, from the teacher's clean value to the critic's, over the teacher's mean distance to the student's
    (eq. 7 and 8 of arXiv 2311.18828) or to the critic's, whichever is farther.

    Without the second, what the critic does not know yet would count many times over where student and teacher agree.
    Undivided this is the gradient of the divergence between the noisy distributions with respect to the landing, over
    ``a (1 - tau) / tau^2``.
    """
    distances = [(other - teacher).abs().mean((1, 2), keepdim=True) for other in (own, critic)]
    return (critic - teacher) / torch.maximum(*distances).clamp(min=_TINY)


def denoising_error(
    clean: Tensor, noisy: Tensor, landing: Tensor, noise: Tensor, low: Tensor, high: Tensor, scale: float
) -> Tensor:
    """Error of a critic's clean value, weighted; its square is least where the critic is right on average.

    The score of noisy landings is ``-E[eps | x_tau] / b`` (Vincent, 2011), and a flow at tau with the clean value x_0
    has ``-(x_tau - (1 - tau) x_0) / tau^2``. So what is to be predicted is ``(x_tau - tau^2 eps / b) / (1 - tau)`` on
    average, which is infinite where no noise was added. Times ``(1 - s) b / tau``, with ``x_tau = a x_s + b eps``, the
    divisions cancel::

        (1 - s) b / tau x_0 = (1 - s) b / tau x_tau - ((1 - s) tau + a s^2) eps + b x_s

    The noise of a landing that is one of a flow at s remains in this target, with the standard deviation s at every
    tau. All is therefore divided by ``hypot(1 - s, s / scale)``, where ``scale`` is how far clean values lie apart: no
    target has more noise than that. A landing at s = 0 is clean: this is then the error of the ordinary objective.
    """
    kept, added = spread(low, high)
    low, high = low[:, None, None], high[:, None, None]
    left = 1 - low
    target = added * landing - (left * high + kept * low.square()) * noise
    error = left * added / high.clamp(min=_TINY) * (clean - noisy) - target
    return error / torch.hypot(left, low / scale)
