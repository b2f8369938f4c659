"""Options that several commands have in common, written down once: those of joint, i2d and d2i here."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection
from functools import wraps
from typing import Any, get_type_hints

import typer

from ...mforce_core.release import FOV_DEGREES, SAMPLERS, STEPS
from ...mforce_core.settings import BUILT_IN
from . import options


class Shared:
    """Name, type and default of each, in the order of the help; most are fields of `Settings`."""

    path: options.PathOption = None
    steps: options.Steps = STEPS
    sampler: options.Sampler = SAMPLERS[0]
    cfg: options.Cfg = None
    cfg_interval: options.CfgInterval = None
    cfg_rescale: options.CfgRescale = 0.0
    cfg_parallel: options.CfgParallel = 1.0
    block_cache: options.BlockCache = 0.0
    guidance: options.Guidance = None
    seed: options.Seed = 0
    count: options.Count = 1
    size: options.Size = None
    fov: options.Fov = FOV_DEGREES
    edge_threshold: options.EdgeThreshold = None
    remove_outliers: options.RemoveOutliers = False
    also: options.Also = None
    model: options.Model = BUILT_IN
    text_encoder: options.TextEncoder = None
    vae: options.Vae = None
    output: options.Output = None
    overwrite: options.Overwrite = False
    device: options.Device = "auto"
    dtype: options.Dtype = "auto"
    compile: options.Compile = False
    cuda_graph: options.CudaGraph = False
    debug: options.Debug = False


#: What says where the results go and how a fault is shown, and not what they are.
OF_THE_COMMAND = ("count", "output", "overwrite", "debug", "given")


def shared_options(
    command: Callable[..., None], options_of: type = Shared, without: Collection[str] = ()
) -> Callable[..., None]:
    """Give a command the shared options after its own; it gets their values in its ``**shared``.

    An option that the command declares itself, with another default say, is not shared. ``shared["given"]`` names the
    options that the person gave, among all of the command's.

    Args:
        options_of: class whose annotated attributes are the options, by name, type and default.
        without: names of those that the command does not take.
    """

    @wraps(command)
    def with_shared(context: typer.Context, **values: Any) -> None:
        command(given={name for name in values if _was_given(context, name)}, **values)

    own = inspect.signature(command, eval_str=True).parameters.values()
    kept = [parameter for parameter in own if parameter.kind is not inspect.Parameter.VAR_KEYWORD]
    shared = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=getattr(options_of, name), annotation=kind)
        for name, kind in get_type_hints(options_of, include_extras=True).items()
        if name not in {parameter.name for parameter in kept} | set(without)
    ]
    shared.append(inspect.Parameter("context", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context))
    with_shared.__signature__ = inspect.Signature([*kept, *shared])  # type: ignore[attr-defined]  # what Typer reads
    return with_shared


def _was_given(context: typer.Context, name: str) -> bool:
    source = context.get_parameter_source(name)
    return source is not None and source.name not in ("DEFAULT", "DEFAULT_MAP")
