"""The three tasks on three networks: text encoder, autoencoder and transformer, loaded once.

>>> from mforce import Pipeline
>>> result = Pipeline.load("nano").joint("a red sphere on a wooden floor", steps=4)
>>> result.save("out")
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..kernels import launches, what_ran
from .batch import Progress, rgb_tokens, sample_batch
from .depth.edges import scaled_edge_threshold
from .device import check_compiler, device_name
from .encoders.autoencoder_files import load_autoencoder
from .encoders.familiarity import UNFAMILIAR, load_familiarity
from .encoders.patch_autoencoder import PatchAutoencoder
from .encoders.text import encode_prompts
from .ensembles import sample_ensembles
from .finishing import Made, finish
from .inputs import DepthInput, Given, PictureInput, take_depth, take_picture, with_starts
from .model.tokens import tokens_to_latents
from .networks import Networks
from .parts import Parts, find_parts
from .release import CFG, LOG2_ALPHA, PATCH_SIZE, Mode
from .resolving import resolve
from .results.provenance import identify, input_files, versions
from .results.result import Result
from .rollout_settings import check_guidance, fitted, idle_guidance, needless_work
from .settings import ALL_BUILT_IN, BUILT_IN, OF_THE_MACHINE, Settings
from .weights.checkpoint import load_model

#: Values of settings that say no more than that nothing was asked for.
_USUAL = {"tilt": LOG2_ALPHA}

_log = logging.getLogger(__name__)


class Pipeline:
    """A loaded model. `Pipeline.load` makes one; `joint`, `i2d` and `d2i` run it.

    Args:
        settings: resolved; its model, device, dtype and threads are used, and what a run leaves open.
        parts: where the networks are.
        prompts: prompts that are known already. They are encoded first and the text encoder is let go before the
            transformer is loaded, so that the two never share the memory.
        say: called with sentences for the person.

    Raises:
        ValueError: the three networks do not belong together, or cannot run here.
    """

    def __init__(
        self, settings: Settings, parts: Parts, prompts: Iterable[str] = (), say: Callable[[str], None] = _log.info
    ) -> None:
        torch.backends.cudnn.deterministic = True
        if settings.threads is not None:
            torch.set_num_threads(settings.threads)
        self.settings, self.parts, self.say = settings, parts, say
        self.device = torch.device(settings.device)
        self._launches_before = launches()
        header = parts.header()
        self.distilled = header.config.distilled
        self._context_channels = header.architecture.context_in_dim
        self._texts: dict[str, Tensor] = {}
        self.encode({*prompts, ""})
        self.autoencoder = load_autoencoder(parts.vae, device=self.device, dtype=torch.float32)
        if isinstance(self.autoencoder, PatchAutoencoder):  # which may be lent to a model of other pictures
            self.autoencoder.familiarity = load_familiarity(parts.model)
        self.model = load_model(parts.model, device=self.device, dtype=getattr(torch, settings.dtype))
        if settings.compile:
            check_compiler(settings.device)
            say("The first step compiles the model, which takes a while.")
            self.model.compile(dynamic=False)
        if {self.autoencoder.spatial_factor, self.model.config.depth_patch_size} != {PATCH_SIZE}:
            raise ValueError(
                f"mforce works with {PATCH_SIZE}-pixel tokens; {parts.model} has depth patches of "
                f"{self.model.config.depth_patch_size} pixels and {parts.vae} cells of "
                f"{self.autoencoder.spatial_factor}."
            )
        channels = self.autoencoder.latent_channels
        if channels != self.model.config.in_channels:
            raise ValueError(
                f"The autoencoder {parts.vae} has {channels} latent channels and the model needs "
                f"{self.model.config.in_channels}: give the one that belongs to the model with `vae`."
            )

    @classmethod
    def load(
        cls,
        model: str | Path = BUILT_IN,
        *,
        text_encoder: str | Path | None = None,
        vae: str | Path | None = None,
        device: str = "auto",
        dtype: str = "auto",
        threads: int | None = None,
        compile: bool = False,
        cuda_graph: bool = False,
        prompts: Iterable[str] = (),
    ) -> Pipeline:
        """Load a model once, for any number of runs.

        Args:
            model: release folder or ``.safetensors`` file; "nano" and "nano-fast" are built in.
            text_encoder: folder with Qwen3, for models without a text encoder of their own.
            vae: FLUX.2 autoencoder, file or folder, where it is not beside the model.
            device: "cpu", "cuda", "cuda:1"...; "auto" is a GPU where there is one.
            dtype: "float32" or "bfloat16"; "auto" is float32 for small models on a CPU, bfloat16 otherwise.
            threads: of the CPU; None for PyTorch's choice.
            compile: compile the model with torch.compile: minutes at the first step, faster steps after it.
            cuda_graph: launch every step as one CUDA graph.
            prompts: prompts known already; see `encode`.

        Raises:
            ValueError: a part is missing, damaged, or does not fit the others or this machine.
        """
        settings = Settings(
            "joint",
            "",
            model=str(model) if model in ALL_BUILT_IN else str(Path(model).absolute()),
            text_encoder=_path(text_encoder),
            vae=_path(vae),
            device=device,
            dtype=dtype,
            threads=threads,
            compile=compile,
            cuda_graph=cuda_graph,
        )
        parts = find_parts(settings.model, settings.text_encoder, settings.vae)
        return cls(resolve(settings, parts), parts, prompts)

    def joint(
        self,
        prompt: str,
        *,
        tilt: float | None = LOG2_ALPHA,
        start_image: PictureInput | None = None,
        start_depth: DepthInput | None = None,
        progress: Progress | None = None,
        **settings: Any,
    ) -> Result:
        """Text to image and depth.

        Args:
            prompt: what to show.
            tilt: log2 of alpha: above 0 the image resolves before the depth, 0 both together, below 0 depth first.
                A distilled model takes its own path unless a tilt or a path is given that is not the default.
            start_image: what the picture starts from, with as much noise as the setting `image_strength` says (0.2
                changes little, 0.9 nearly all); by default noise alone.
            start_depth: the same for the depth, and `depth_strength`.
            progress: called with (step, steps) after every denoising step; what it raises ends the run.
            settings: other fields of `Settings`: seed, steps, sampler, path (instead of tilt), cfg, cfg_interval,
                enlarge (so many times larger), refine_depth, guidance, size, fov, edge_threshold, remove_outliers.

        Raises:
            ValueError: impossible settings, or the model gave nothing that can be used.
        """
        settings |= {"start_image": _path(start_image), "start_depth": _path(start_depth)}
        job = self.job("joint", prompt, tilt=None if settings.get("path") else tilt, **settings)
        return self.generate([job], [with_starts(Given(), job, start_image, start_depth)], progress)[0]

    def i2d(
        self,
        image: PictureInput,
        prompt: str = "",
        *,
        original_size: bool = True,
        start_depth: DepthInput | None = None,
        progress: Progress | None = None,
        **settings: Any,
    ) -> Result:
        """Image to depth.

        Args:
            image: a file, a Pillow image, or (H, W, 3) uint8.
            prompt: what the picture shows, if that is known.
            original_size: bring the depth back to the picture's own size, sharp between near and far; else the result
                has the size that the model saw.
            start_depth: as in `joint`, with `depth_strength`.
            progress: as in `joint`; with full_size it counts the tiles after the steps.
            settings: as in `joint`; full_size, for depth that is refined at the picture's own size, with tile, overlap
                and tile_strength; ensemble, for the median of several maps and where they disagree; follow, for depth
                that follows the picture loosely; and fit: "pad" letterboxes a picture of another shape, "crop" cuts its
                middle.

        Returns:
            The picture and its depth.

        Raises:
            ValueError: as in `joint`, or the picture cannot be read.
        """
        settings |= {"input": _path(image), "start_depth": _path(start_depth)}
        job = self.job("i2d", prompt, original_size=original_size, **settings)
        return self.generate([job], [with_starts(take_picture(image, job), job, None, start_depth)], progress)[0]

    def d2i(
        self,
        depth: DepthInput,
        prompt: str,
        *,
        start_image: PictureInput | None = None,
        progress: Progress | None = None,
        **settings: Any,
    ) -> Result:
        """Depth to image.

        Args:
            depth: a file, or (H, W) numbers; zero, negative and non-finite ones are missing.
            prompt: what to show.
            start_image: as in `joint`, with `image_strength`.
            progress: as in `joint`.
            settings: as in `i2d` (follow is for a picture that follows the depth loosely), and for files: mask (an
                image, dark where the depth is not to be used), disparity (the file holds inverse depth) and far_to_near
                (of disparity that was stretched to all levels: how many times farther black is than white).

        Raises:
            ValueError: as in `joint`, or the depth cannot be read or has no measured pixel.
        """
        job = self.job("d2i", prompt, input=_path(depth), start_image=_path(start_image), **settings)
        return self.generate([job], [with_starts(take_depth(depth, job), job, start_image, None)], progress)[0]

    def job(self, mode: Mode, prompt: str, *, cfg: float | None = None, **settings: Any) -> Settings:
        """Settings of one run, filled in from the pipeline's: its size, the release's guidance scale of the mode, and
        steps, guidance and path of a distilled model.

        Raises:
            ValueError: an impossible value, or one that was decided when the model was loaded.
        """
        loaded = {"model", "text_encoder", "vae", "dtype", *OF_THE_MACHINE} & set(settings)
        if loaded:
            raise ValueError(f"{', '.join(sorted(loaded))} cannot change after the model is loaded.")
        chosen = {"size": self.settings.size, "edge_threshold": None, **settings}
        job = replace(self.settings, mode=mode, prompt=prompt, cfg=CFG[mode] if cfg is None else cfg, **chosen)
        asked = {name for name, value in settings.items() if value not in (None, _USUAL.get(name))}
        job = fitted(job, self.distilled, asked | ({"cfg"} if cfg is not None else set()))
        return replace(job, edge_threshold=job.edge_threshold or scaled_edge_threshold(max(job.canvas)))

    def encode(self, prompts: Iterable[str]) -> None:
        """Encode prompts that are not known yet.

        Text encoders can be as large as the model. They are therefore loaded for this alone: with a large model, give
        all prompts at once.
        """
        ordered = sorted(set(prompts) - set(self._texts))
        if not ordered:
            return
        path, channels = self.parts.text_encoder, self._context_channels
        self._texts |= encode_prompts(path, ordered, channels, str(self.device), self.say)

    def features(self, prompts: Sequence[str]) -> Tensor:
        """Text features of prompts, (B, T, C) float32 or the text encoder's own type."""
        self.encode(prompts)
        return torch.cat([self._texts[prompt] for prompt in prompts])

    @torch.no_grad()
    def generate(
        self, jobs: Sequence[Settings], givens: Sequence[Given], progress: Progress | None = None
    ) -> list[Result]:
        """Run jobs that differ in prompt, seed and input alone as one batch.

        Each starts from the noise of its own seed, whatever else is in the batch.

        Args:
            jobs: settings from `job`, or resolved ones.
            givens: what each is given, on its canvas.
            progress: as in `joint`.
        """
        first, config = jobs[0], self.model.config
        if any(replace(job, prompt=first.prompt, seed=first.seed, input=first.input) != first for job in jobs):
            raise ValueError("The jobs of a batch may differ in prompt, seed and input alone.")
        check_guidance(config, first)
        for sentence in (needless_work(self.distilled, first.steps, first.cfg), idle_guidance(first)):
            if sentence is not None:
                self.say(sentence)
        # A replayed graph counts nothing: what ran is what has run since the model was loaded.
        before = self._launches_before if first.cuda_graph else launches()
        if first.ensemble == 1:
            images, maps = self._sample(jobs, givens, progress)
            spreads = None
        else:
            images = None
            maps, spreads = sample_ensembles(self._sample, jobs, givens, progress)
        # Not what was asked for: a rerun asks for what ran.
        kernels = {name: entry for name, entry in what_ran(since=before).items() if name != "asked"}
        results = []
        for index, (job, given) in enumerate(zip(jobs, givens, strict=True)):
            image = given.rgb if images is None else images[index]
            depth = given.depth if maps is None else maps[index]
            assert image is not None
            assert depth is not None
            made = Made(image, depth, None if spreads is None else spreads[index])
            made = finish(made, given, job, partial(self.networks, job.prompt, job.guidance), progress)
            results.append(Result(made.image, made.depth, job, self._origin(job, given, kernels), made.spread))
        return results

    def _sample(
        self, jobs: Sequence[Settings], givens: Sequence[Given], progress: Progress | None
    ) -> tuple[np.ndarray | None, np.ndarray | None]:
        text = self.features([job.prompt for job in jobs])
        networks = Networks(self.model, self.autoencoder, text, self._texts[""], jobs[0].guidance)
        return sample_batch(networks, jobs, givens, progress)

    def _origin(self, job: Settings, given: Given, kernels: dict[str, Any]) -> dict[str, Any]:
        return {
            "model_files": self.model_files,
            "input_files": input_files(job),
            "versions": versions(),
            "device": device_name(self.device),
            "kernels": kernels,
            "notes": [*given.notes, *self._unfamiliar(given)],
        }

    def _unfamiliar(self, given: Given) -> list[str]:
        """A sentence where a picture is far from all that a small model knows."""
        if given.rgb is None or not isinstance(self.autoencoder, PatchAutoencoder):
            return []
        tokens = rgb_tokens(self.autoencoder, [given.rgb], self.device)
        grid = (given.rgb.shape[0] // PATCH_SIZE, given.rgb.shape[1] // PATCH_SIZE)
        if not self.autoencoder.is_unfamiliar(tokens_to_latents(tokens, grid))[0]:
            return []
        self.say(UNFAMILIAR)
        return [UNFAMILIAR]

    def networks(self, prompt: str, guidance: float | None = None) -> Networks:
        """What makes tiles for a prompt; with the scale for a model that embeds one."""
        return Networks(self.model, self.autoencoder, self.features([prompt]), self.features([""]), guidance)

    @cached_property
    def model_files(self) -> dict[str, dict[str, Any]]:
        """Size and hash of every file that decides the result, by part and name."""
        return {part: {file.name: identify(file) for file in files} for part, files in self.parts.files().items()}


def _path(given: Any) -> str | None:
    """The absolute path of an input file, from which the result can be made again."""
    return str(Path(given).absolute()) if isinstance(given, (str, Path)) else None
