"""How a model's samples depend on path, solver and steps: errors against many steps, looks, and cost.

``solvers``: the release's joint path by different solvers, spacings and steps, against many Euler steps.
``paths``: joint paths that end in other pictures: how they look, and how well depth and picture agree.
``i2d``: depth of rendered pictures against the exact depth, by number of steps.
``follow``: pictures that follow a depth map, and depth that follows a picture, by log2 of alpha.
``cache``: blocks reused between steps, against the same path without that.
``looks``: whether people could tell cheaper joint and depth-to-image rollouts from the release's.
``completion``: depth of rendered pictures of which a share of the pixels is measured.
``ensemble``: whether the spread of several depth maps of a picture tells where they are wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from scipy.stats import spearmanr
from torch import Tensor

from ..mforce_core.depth.ensemble import combine
from ..mforce_core.release import LOG2_ALPHA, STEPS
from ..mforce_core.settings import DEPTH_STEPS, FAST_SAMPLER, FAST_SIGMA, FAST_STEPS
from . import comparison, intervals
from .appearance import seam_steps, sharpness
from .judge import load_judge
from .metrics import abs_rel, align_median, edge_band, scaled_abs_rel
from .nano import object_prompts
from .sampling_subject import Outcome, Subject, Way, reference_of

RELEASED = f"tilt log2_alpha={LOG2_ALPHA:g}"
#: More steps at both ends of the path, for solvers of second order; found on nano.
SPREAD = f"{RELEASED} sigma={FAST_SIGMA}"
#: Euler steps of what the solvers are held against.
REFERENCE_STEPS = 400

SOLVERS: Mapping[str, Way] = {
    "Euler, the release's 50": Way(RELEASED, 50),
    "Euler 20": Way(RELEASED, 20),
    "Heun 20": Way(RELEASED, 20, "heun"),
    "2M 20": Way(RELEASED, 20, "dpmpp_2m"),
    f"2M 20, sigma {FAST_SIGMA}": Way(SPREAD, 20, "dpmpp_2m"),
    f"fast: 2M {FAST_STEPS}, sigma {FAST_SIGMA}": Way(SPREAD, FAST_STEPS, FAST_SAMPLER),
    f"2M 16, sigma {FAST_SIGMA}, guidance above 0.3": Way(SPREAD, 16, "dpmpp_2m", cfg_interval=(0.3, 1.0)),
}
PATHS: Mapping[str, Way] = {
    "tilt 5, the release's": Way(SPREAD, 20, "dpmpp_2m"),
    "tilt 0, both together": Way(f"tilt log2_alpha=0 sigma={FAST_SIGMA}", 20, "dpmpp_2m"),
    "tilt -5, depth first": Way(f"tilt log2_alpha=-5 sigma={FAST_SIGMA}", 20, "dpmpp_2m"),
    "RGB done by 60%": Way("finish rgb_by=0.6", 20, "dpmpp_2m"),
    "first all RGB, then depth": Way("points 1,1 0,1 0,0", 20, "dpmpp_2m"),
    "tilt 5 with a restart": Way("tilt log2_alpha=5 restart=0.9,0.6,1", 15, "dpmpp_2m"),
}
#: Ways that a block cache is held against, and its thresholds.
CACHED: Mapping[str, Way] = {
    "Euler 50": Way(RELEASED, 50),
    f"fast: 2M {FAST_STEPS}": Way(SPREAD, FAST_STEPS, FAST_SAMPLER),
}
CACHES = (0.02, 0.03, 0.05, 0.1)
#: Cheaper ways of joint sampling; their solver, steps and guidance also make pictures from depth. Image to depth takes
#: the few steps of the command line.
LOOKS: Mapping[str, Way] = {
    name: SOLVERS[name] for name in (f"2M 20, sigma {FAST_SIGMA}", f"fast: 2M {FAST_STEPS}, sigma {FAST_SIGMA}")
} | {f"fast, guidance {guidance:g}": Way(SPREAD, FAST_STEPS, FAST_SAMPLER, cfg=guidance) for guidance in (3.0, 2.0)}
I2D_STEPS = (1, 2, 4, 10, 50, 25, 100)
FOLLOW = (None, -8.0, -5.0, -2.0, 0.0, 3.0, -14.0)
MEASURED = (0.002, 0.01, 0.05)  # share of the pixels
ENSEMBLE = ((4, 4), (4, 10))  # maps, steps

#: How many pictures a section is measured on.
COUNTS = {
    "solvers": 64,
    "paths": 64,
    "cache": 64,
    "looks": 96,
    "i2d": 64,
    "follow": 24,
    "completion": 64,
    "ensemble": 128,
}

Row = dict[str, Any]


def study(
    subject: Subject, section: str, *, count: int | None = None, reference: Path | None = None,
    prompts: Sequence[str] | None = None, skip: Collection[str] = (),
) -> Iterator[Row]:  # fmt: skip
    """Measure a section, row by row.

    Args:
        count: pictures; by default as many as in :data:`COUNTS`.
        reference: file that keeps the tokens of the reference, which take longest; those of ``looks`` are kept beside
            it, with -looks in their name.
        prompts: of joint sampling; by default of lone objects, whose shape a judge can name.
        skip: names of rows that are known.

    Raises:
        ValueError: an unknown section.
    """
    if section not in COUNTS:
        raise ValueError(f"A study of sampling has {', '.join(COUNTS)}, not {section}.")
    pictures = count or COUNTS[section]
    rows = _rows(subject, section, pictures, reference, prompts)
    for name, measure in rows.items():
        if name not in skip:
            yield {"name": name, "pictures": pictures, **measure()}


def _rows(
    subject: Subject, section: str, count: int, reference: Path | None, prompts: Sequence[str] | None
) -> dict[str, Callable[[], Row]]:
    """The measurements of a section by name."""
    if section == "solvers":
        texts, shapes = _prompts(prompts, count)
        against = cache(lambda: reference_of(subject, texts, Way(RELEASED, REFERENCE_STEPS), reference))
        return {name: partial(_joint, subject, way, texts, shapes, against) for name, way in SOLVERS.items()}
    if section == "paths":
        texts, shapes = _prompts(prompts, count)
        return {name: partial(_joint, subject, way, texts, shapes) for name, way in PATHS.items()}
    if section == "cache":
        texts, shapes = _prompts(prompts, count)
        exact = {name: cache(partial(subject.run, texts, way)) for name, way in CACHED.items()}
        return {
            f"{name}, {threshold:g}": partial(
                _joint, subject, replace(way, block_cache=threshold), texts, shapes, exact[name]
            )
            for name, way in CACHED.items()
            for threshold in CACHES
        }
    if section == "looks":
        file = None if reference is None else reference.with_stem(reference.stem + "-looks")
        return _looks(subject, count, file)
    scenes = subject.scenes(count)
    if section == "i2d":
        return {f"{steps} steps": partial(_image_to_depth, subject, scenes, steps) for steps in I2D_STEPS}
    if section == "follow":
        return {
            "frozen" if strength is None else f"{strength:g}": partial(_follow, subject, scenes, strength)
            for strength in FOLLOW
        }
    if section == "completion":
        return {f"{share:.1%} of the pixels": partial(_completion, subject, scenes, share) for share in MEASURED}
    return {
        f"{maps} maps of {steps} steps": partial(_ensemble, subject, scenes, maps, steps) for maps, steps in ENSEMBLE
    }


def _prompts(given: Sequence[str] | None, count: int) -> tuple[list[str], Tensor | None]:
    """Prompts, and the shapes that they name where the judge knows them."""
    if given is not None:
        return [given[number % len(given)] for number in range(count)], None
    known = object_prompts()
    chosen = [known[number * len(known) // count % len(known)] for number in range(count)]
    return [prompt.text for prompt in chosen], torch.tensor([prompt.shape for prompt in chosen])


def _joint(
    subject: Subject,
    way: Way,
    prompts: list[str],
    shapes: Tensor | None,
    reference: Callable[[], Outcome] | None = None,
) -> Row:
    against = None if reference is None else reference()
    outcome = subject.run(prompts, way)
    images, maps = subject.decode(outcome.rgb), subject.maps(outcome.depth)
    seen = subject.depth_of(outcome.rgb)
    columns = {
        "depth_against_i2d_absrel": intervals.mean(scaled_abs_rel(maps, seen)),
        "rgb_seam": intervals.ratio(seam_steps(images)),
        "depth_seam": intervals.ratio(seam_steps(maps.log())),
    }
    if shapes is not None:
        columns["shape_accuracy"] = intervals.share(load_judge().shapes(images) == shapes)
    if against is not None:
        error = (images - subject.decode(against.rgb)).square().flatten(1).mean(1)
        columns["psnr"] = intervals.mean(-10 * error.clamp(min=1e-12).log10())
        columns["depth_absrel"] = intervals.mean(scaled_abs_rel(maps, subject.maps(against.depth)))
    cost = {"passes": outcome.passes, "seconds": outcome.seconds}
    if way.block_cache and against is not None:
        cost |= {"reused": outcome.reused, "seconds_without": against.seconds}
    return {**way.settings, **cost, **intervals.as_json(columns)}


def _looks(subject: Subject, count: int, reference: Path | None) -> dict[str, Callable[[], Row]]:
    """The release's way, and cheaper ones beside it: ``count`` prompts of one object, two thirds as many scenes."""
    inputs = comparison.Inputs(subject, comparison.Counts(prompts=count, scenes=max(2, 2 * count // 3)))

    def measured(made: comparison.Made) -> comparison.Measured:
        return comparison.Measured(made, inputs, subject)

    released = comparison.released(STEPS)
    own = cache(lambda: measured(comparison.kept(subject, released, inputs, reference)))

    def cheaper(name: str, joint: Way) -> Row:
        drawn = replace(joint, path=f"d2i sigma={FAST_SIGMA}")
        ways = comparison.Ways(joint, Way("i2d", DEPTH_STEPS, cfg=1.0), drawn)
        other = measured(comparison.make(subject, ways, inputs))
        return comparison.row(name, ways, other) | {
            "over_release": other.over(own()),
            "minus_release": other.minus(own()),
        }

    first = f"Euler, the release's {STEPS}"
    return {first: lambda: comparison.row(first, released, own())} | {
        other: partial(cheaper, other, way) for other, way in LOOKS.items()
    }


def _image_to_depth(subject: Subject, scenes: tuple[Any, Tensor, Tensor], steps: int) -> Row:
    _, images, exact = scenes
    outcome = subject.run([""] * len(images), Way("i2d", steps, cfg=1.0), mode="i2d", rgb=subject.encode(images))
    maps = subject.maps(outcome.depth)
    aligned = align_median(maps, exact)
    edges = abs_rel(aligned, exact.where(edge_band(exact), torch.nan))
    columns = {
        "absrel": intervals.mean(abs_rel(aligned, exact)),
        "edge_absrel": intervals.mean(edges[edges.isfinite()]),
        "sharpness": intervals.ratio(torch.stack((sharpness(maps.log()), sharpness(exact.log())), dim=1)),
        "seam": intervals.ratio(seam_steps(maps.log())),
    }
    return {"steps": steps, "passes": outcome.passes, "seconds": outcome.seconds,
            **intervals.as_json(columns)}  # fmt: skip


def _follow(subject: Subject, scenes: tuple[Any, Tensor, Tensor], strength: float | None) -> Row:
    """Two pictures of every depth map and its caption, and the depth of every picture."""
    layout, images, exact = scenes
    word = "" if strength is None else f" log2_alpha={strength:g}"
    way, given = Way("d2i" + word, 10, "dpmpp_2m"), subject.encode_depth(exact)
    drawn = [subject.run(subject.captions(layout), way, mode="d2i", depth=given, again=again).rgb for again in range(2)]
    pictures = [subject.decode(rgb) for rgb in drawn]
    seen = torch.cat([subject.depth_of(rgb) for rgb in drawn])
    difference = (pictures[0] - pictures[1]).square().flatten(1).mean(1).sqrt()
    loose = subject.run([""] * len(images), Way("i2d" + word, 4, cfg=1.0), mode="i2d", rgb=subject.encode(images)).depth
    columns = {
        "d2i_depth_absrel": intervals.mean(scaled_abs_rel(seen, exact.repeat(2, 1, 1)).view(2, -1).mean(0)),
        "d2i_rms_between_seeds": intervals.mean(difference),
        "i2d_absrel": intervals.mean(scaled_abs_rel(subject.maps(loose), exact)),
    }
    return {"log2_alpha": strength, **intervals.as_json(columns)}


def _completion(subject: Subject, scenes: tuple[Any, Tensor, Tensor], share: float) -> Row:
    """Depth where it was not measured: with the measurements correcting every step, and with the scale alone."""
    _, images, exact = scenes
    random = torch.Generator().manual_seed(subject.seed)
    given = torch.rand(exact.shape, generator=random) < share
    given[:, exact.shape[1] // 2, exact.shape[2] // 2] = True  # one at least
    empty, way, tokens = [""] * len(images), Way("i2d", DEPTH_STEPS, cfg=1.0), subject.encode(images)
    maps = [
        subject.maps(subject.run(empty, way, mode="i2d", rgb=tokens, measured=measured).depth)
        for measured in (None, (exact, given))
    ]
    plain, corrected = (
        torch.stack([_unmeasured_error(*pair) for pair in zip(made, exact, given, strict=True)]) for made in maps
    )
    columns = {
        "scaled_absrel": intervals.mean(plain),
        "completed_absrel": intervals.mean(corrected),
        "ratio": intervals.ratio(torch.stack((corrected, plain), dim=1)),
    }
    return {"share": share, "steps": DEPTH_STEPS, **intervals.as_json(columns)}


def _unmeasured_error(made: Tensor, exact: Tensor, given: Tensor) -> Tensor:
    """AbsRel of a map (H, W) where nothing was measured, its scale that of the measurements."""
    scale = (exact / made)[given].median()
    return (scale * made / exact - 1).abs()[~given].mean()


def _ensemble(subject: Subject, scenes: tuple[Any, Tensor, Tensor], count: int, steps: int) -> Row:
    _, images, exact = scenes
    tokens, way = subject.encode(images), Way("i2d", steps, cfg=1.0)
    maps = torch.stack(
        [
            subject.maps(subject.run([""] * len(images), way, mode="i2d", rgb=tokens, again=again).depth)
            for again in range(count)
        ]
    )  # (K, B, H, W)
    single, combined, certain, correlation = [], [], [], []
    for picture, truth in zip(maps.unbind(1), exact, strict=True):
        depth, spread = combine(picture)
        error = (align_median(depth[None], truth[None])[0] / truth - 1).abs()
        known = error.isfinite() & spread.isfinite()
        error, spread = error[known], spread[known]
        correlation.append(float(spearmanr(error.numpy(), spread.numpy()).statistic))
        certain.append(float(error[spread <= spread.quantile(0.8)].mean()))
        combined.append(float(error.mean()))
        single.append(float(scaled_abs_rel(picture, truth.expand_as(picture)).mean()))
    columns = {
        "single_absrel": single, "ensemble_absrel": combined, "certain_80_percent_absrel": certain,
        "spearman_of_spread_and_error": correlation,
    }  # fmt: skip
    estimates = {name: intervals.mean(torch.tensor(values)) for name, values in columns.items()}
    return {"maps": count, "steps": steps, **intervals.as_json(estimates)}
