"""Run by ComfyUI's Python: rollouts along paths, through core's nodes and MF Sampler's route; results as JSON.

Usage: path_runs.py PACK_ROOT GOLDEN_VARIANT_FOLDER...
"""

import json
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

from pack_loading import load_pack

STEPS = 6
SOLVERS = ("euler", "heun", "dpmpp_2m")
#: Kind of task and path; the schedules of `shifts` are those of the golden variants.
PATHS = {
    "tilt": ("joint", {"kind": "tilt", "log2_alpha": -3}),
    "shifts": ("joint", {"kind": "shifts", "mu": 0.3, "sigma": 1.5, "depth_mu": -0.7, "depth_sigma": 0.8}),
    "finish": ("joint", {"kind": "finish", "rgb_by": 0.5}),
    "points": ("joint", {"kind": "points", "points": [[1, 1], [0.6, 0.2], [0, 0]]}),
    "loose i2d": ("i2d", {"kind": "i2d", "log2_alpha": -4}),
    "loose d2i": ("d2i", {"kind": "d2i", "log2_alpha": -4}),
}

#: Paths from noise whose first level is a rounding below 1 in float32.
ALMOST = {
    "almost tilt": {"kind": "tilt", "log2_alpha": -7.2},
    "almost points": {"kind": "points", "points": [[1, 1], [0.02, 0.28], [0, 0]]},
}


def main(root: Path, *folders: Path) -> None:
    load_pack(root)
    print(json.dumps({folder.name: Variant(folder).results() for folder in folders}))


class Variant:
    """A golden model with its data, and ways to run it."""

    def __init__(self, folder: Path) -> None:
        import torch
        from pack_under_test.nodes.host.model_loader import load_joint_model
        from safetensors.torch import load_file

        self.torch, self.folder = torch, folder
        self.settings = json.loads((folder / "sample.json").read_text())
        self.data = load_file(folder / "sample.safetensors")
        self.size = json.loads((folder / "config.json").read_text())["grid"]
        self.model = load_joint_model(str(folder))
        guidance = {name: self.settings[name] for name in ("guidance",) if name in self.settings}
        self.texts = [self.data[name] for name in ("text", "null_text")]
        self.conditioning = [[[text, dict(guidance)]] for text in self.texts]
        self.guidance = guidance.get("guidance")
        self.clean = [self.grid(self.data[f"clean_{stream}"]) for stream in ("rgb", "depth")]

    def grid(self, tokens):
        return tokens.transpose(1, 2).unflatten(2, self.size).contiguous()

    def results(self):
        found = {"golden": self.golden(), "core": self.core(), "schedule": self.schedule()}
        return found | (self.behavior() if self.folder.name == "v2" else {})

    def latent(self, mode, batch=None):
        """What a task starts from, with the golden data's clean streams where one is given."""
        from pack_under_test.nodes.host.joint_latent import joint

        rgb, depth = (stream[:batch] for stream in self.clean)
        rgb, depth = rgb if mode == "i2d" else 0 * rgb, depth if mode == "d2i" else 0 * depth
        return joint(rgb, depth, freeze_rgb=mode == "i2d", freeze_depth=mode == "d2i")

    def advanced(self, latent, noise, sampler, cfg, sigmas=None, conditioning=None):
        """Both outputs of core's SamplerCustomAdvanced."""
        import comfy.samplers
        from comfy_extras.nodes_custom_sampler import SamplerCustomAdvanced

        class Given:
            seed = 0

            def generate_noise(self, _latent):
                return noise

        guider = comfy.samplers.CFGGuider(self.model)
        guider.set_conds(*(conditioning or self.conditioning))
        guider.set_cfg(cfg)
        sigmas = sampler.sigmas if sigmas is None else sigmas
        return SamplerCustomAdvanced.execute(Given(), guider, sampler, sigmas, latent)[:2]

    def golden(self):
        from comfy.nested_tensor import NestedTensor
        from pack_under_test.mforce_core.sampling.path_spec import PathSpec
        from pack_under_test.mforce_core.sampling.schedule import rollout_times
        from pack_under_test.nodes.host.core_sampler import Settings, read_task, run
        from pack_under_test.nodes.host.joint_latent import joint
        from pack_under_test.nodes.host.path_plan import PathPlan
        from pack_under_test.nodes.host.path_sampler import PathSampler

        errors = {}
        for name, golden in self.settings["runs"].items():
            mode, cfg = golden["mode"], golden["cfg_scale"]
            noise = NestedTensor([self.grid(self.data[f"{name}.init_{stream}"]) for stream in ("rgb", "depth")])
            rgb, depth = noise.unbind() if mode != "joint" else map(self.torch.zeros_like, noise.unbind())
            latent = joint(rgb, depth, freeze_rgb=mode == "i2d", freeze_depth=mode == "d2i")
            schedule = self.model.model.diffusion_model.schedule
            times = rollout_times(
                golden["num_steps"], mode=mode, log2_alpha=golden.get("log2_alpha"), schedule=schedule
            )
            levels = PathSpec("levels", points=tuple(zip(*(stream.tolist() for stream in times), strict=True)))
            plan = PathPlan.of(levels, golden["num_steps"], "euler")
            out, x0 = self.advanced(latent, noise, PathSampler(plan), cfg)
            settings = Settings(cfg=cfg, depth_cfg=cfg, plan=plan)
            mf = run(self.model, *self.conditioning, read_task(latent, "auto"), noise, settings, [0] * len(rgb))
            routes = {"advanced": out["samples"].unbind(), "x0": x0["samples"].unbind(), "mf": mf}
            for route, streams in routes.items():
                for stream, result in zip(("rgb", "depth"), streams, strict=True):
                    errors[f"{route}.{name}.{stream}"] = error(result, self.grid(self.data[f"{name}.out_{stream}"]))
        return errors

    def core(self):
        """Every path with every solver against ``mforce_core.sample``."""
        from comfy.nested_tensor import NestedTensor
        from pack_under_test.mforce_core.sampling.path_spec import PathSpec
        from pack_under_test.mforce_core.sampling.rollout import sample
        from pack_under_test.mforce_core.weights.checkpoint import load_model
        from pack_under_test.nodes.host.path_plan import PathPlan
        from pack_under_test.nodes.host.path_sampler import PathSampler

        reference = load_model(self.folder)
        generator = self.torch.Generator().manual_seed(5)
        noise = [self.torch.randn(stream.shape, generator=generator) for stream in self.clean]
        errors = {}
        for name, (mode, spec) in PATHS.items():
            described = PathSpec.from_dict(spec)
            path = described.build(STEPS, reference.schedule)
            for solver in SOLVERS:
                sampler = PathSampler(PathPlan.of(described, STEPS, solver))
                found = self.advanced(self.latent(mode), NestedTensor(noise), sampler, 2.5)[0]
                wanted = sample(
                    reference,
                    self.texts[0],
                    tuple(self.size),
                    mode=mode,
                    cfg=2.5,
                    null_text=self.texts[1],
                    rgb=tokens(self.clean[0]) if mode == "i2d" else None,
                    depth=tokens(self.clean[1]) if mode == "d2i" else None,
                    noise=tuple(map(tokens, noise)),
                    guidance=self.guidance,
                    path=path,
                    solver=solver,
                )
                pairs = zip(found["samples"].unbind(), map(self.grid, wanted), strict=True)
                errors[f"{solver}.{name}"] = max(error(a, b) for a, b in pairs)
        return errors

    def schedule(self):
        """How far control strength is from the path on a model's own schedule, of each mode."""
        from pack_under_test.mforce_core.model.config import Schedule
        from pack_under_test.mforce_core.sampling.path_spec import PathSpec
        from pack_under_test.nodes.host.core_sampler import Settings, sample_latent
        from pack_under_test.nodes.host.path_plan import PathPlan, strength_to_tilt

        network = self.model.model.diffusion_model
        usual, network.schedule = network.schedule, Schedule(0.3, -0.7, 1.5, 0.8)
        positive, negative = ([[text[:1], *rest]] for ((text, *rest),) in self.conditioning)
        errors = {}
        for mode in ("i2d", "d2i"):
            spec = PathSpec(mode, log2_alpha=strength_to_tilt(0.6))
            plan = PathPlan.of(spec, STEPS, "euler")
            by_strength, by_path = (
                sample_latent(self.model, positive, negative, self.latent(mode, 1), "auto", Settings(**options), 7)
                for options in ({"steps": STEPS, "control_strength": 0.6}, {"plan": plan})
            )
            errors[mode] = max(map(error, by_strength, by_path))
        network.schedule = usual
        return errors

    def behavior(self):
        import comfy.utils
        from comfy.nested_tensor import NestedTensor
        from pack_under_test.mforce_core.sampling.path_spec import PathSpec
        from pack_under_test.nodes.host.core_sampler import Settings, sample_latent
        from pack_under_test.nodes.host.joint_latent import joint
        from pack_under_test.nodes.host.path_plan import PathPlan, read_path, strength_to_tilt
        from pack_under_test.nodes.host.path_sampler import PathSampler

        positive, negative = ([[text[:1], *rest]] for ((text, *rest),) in self.conditioning)
        equal = self.torch.equal

        def plan(solver="euler", **spec):
            return PathPlan.of(PathSpec.from_dict(spec), STEPS, solver)

        def sampled(latent, same_noise="never", refine=False, **settings):
            settings = Settings(**{"steps": STEPS, "cfg": 2.5, **settings})
            return sample_latent(self.model, positive, negative, latent, "auto", settings, 7, refine, same_noise)

        found = {"same as the path": {}}
        for mode in ("i2d", "d2i"):
            given = self.latent(mode, 1)
            by_strength = sampled(given, control_strength=0.6)
            path = plan(kind=mode, log2_alpha=strength_to_tilt(0.6))
            strict = sampled(given)
            same = all(map(equal, by_strength, sampled(given, plan=path)))
            found["same as the path"][mode] = same and not all(map(equal, by_strength, strict))
            kept = 0 if mode == "i2d" else 1
            found["given unchanged"] = found.get("given unchanged", True) and equal(
                by_strength[kept], self.clean[kept][:1]
            )
            at_one = sampled(given, plan=plan(kind=mode))
            found["full strength is the release's"] = max(map(error, at_one, strict)) < 1e-5

        noisy = plan("euler_ancestral", kind="tilt", log2_alpha=2.0, restarts=[[0.8, 0.5, 1]])
        pair = sampled(self.latent("joint"), plan=noisy)
        second = sampled(self.latent("joint", 1) | {"batch_index": [1]}, plan=noisy)
        found["picture in a batch"] = max(error(a[1:2], b) for a, b in zip(pair, second, strict=True))
        same = [sampled(self.latent("joint"), plan=noisy, same_noise=when)[0] for when in ("always", "never")]
        found["same noise"] = [equal(streams[0], streams[1]) for streams in same]

        counted = []
        comfy.utils.set_progress_bar_global_hook(lambda value, total, *_, **__: counted.append((value, total)))
        refining = plan("dpmpp_2m", kind="tilt", restarts=[[0.5, 0.0, 1]])
        twice = [sampled(self.latent("joint", 1), refine=True, steps=3, plan=refining, **extra)
                 for extra in ({}, {"sampler_name": "lms", "scheduler": "karras"})]  # fmt: skip
        found["progress"] = list(counted[-1])
        second = plan("dpmpp_2m", kind="i2d")
        again = sampled(self.latent("i2d", 1) | joint(twice[0][0], 0 * twice[0][1], freeze_rgb=True), plan=second)
        found["refined"] = error(twice[0][1], again[1])
        found["refined by the path alone"] = all(map(equal, *twice))
        found |= self.around_a_path(sampled, plan)

        noise = NestedTensor([self.torch.randn_like(stream) for stream in self.clean])
        sampler = PathSampler(plan(**PATHS["finish"][1]))
        whole = self.advanced(self.latent("joint"), noise, sampler, 1.0)[0]["samples"].unbind()
        first = self.advanced(self.latent("joint"), noise, sampler, 1.0, sampler.sigmas[:4])[0]
        nothing = NestedTensor([0 * stream for stream in self.clean])
        rest = self.advanced(first, nothing, sampler, 1.0, sampler.sigmas[3:])[0]
        found["split"] = max(map(error, rest["samples"].unbind(), whole))

        mask = self.torch.ones(1, 1, *self.size)
        mask[..., : self.size[1] // 2] = 0
        half = joint(*self.clean) | {"noise_mask": NestedTensor([mask, mask])}
        masked = self.advanced(half, noise, PathSampler(plan("heun", **PATHS["points"][1])), 1.0)[0]
        left = [stream[..., : self.size[1] // 2] for stream in (*masked["samples"].unbind(), *self.clean)]
        right = [stream[..., self.size[1] // 2 :] for stream in (*masked["samples"].unbind(), *self.clean)]
        found["masked"] = [all(equal(a, b) for a, b in zip(s[:2], s[2:], strict=True)) for s in (left, right)]

        widgets = {"shape": "points", "steps": 4, "points": "0.5,0.5 1,1", "restarts": "", "mu": 1.1, "sigma": 1.0}
        widgets |= {"start_rgb": 1.0, "start_depth": 1.0}
        found["messages"] = {
            "empty": message(lambda: sampled(self.latent("joint", 1), plan=plan(kind="i2d"))),
            "denoise": message(lambda: sampled(self.latent("joint", 1), plan=plan(kind="tilt"), denoise=0.5)),
            "sampler": message(lambda: sampled(self.latent("i2d", 1), control_strength=0.5, sampler_name="lms")),
            "points": message(lambda: read_path(widgets)),
            "words": message(lambda: read_path(widgets | {"points": "one,two"})),
            "foreign": message(lambda: sampler.sample(SimpleNamespace(inner_model=None), None, {}, None, noise)),
        }
        # In float32 some paths start a rounding below 1.
        for name, spec in ALMOST.items():
            found["messages"][name] = message(lambda spec=spec: sampled(self.latent("joint", 1), plan=plan(**spec)))
        return found

    def around_a_path(self, sampled, plan):
        """What belongs to core and happens while a path is followed: LoRA, previews, interruption, notices, holes."""
        import comfy.model_management
        import comfy.utils
        import latent_preview
        from pack_under_test.mforce_core.model.block_cache import BlockCache
        from pack_under_test.nodes.host import core_sampler

        found = {}
        diagonal = plan(kind="tilt", log2_alpha=0.0)
        usual = sampled(self.latent("joint", 1), log2_alpha=0.0)
        whole, name = self.model, "diffusion_model.single_blocks.0.linear2.weight"
        shape = whole.model.state_dict()[name].shape
        self.model = whole.clone()
        self.model.add_patches({name: ("diff", (self.torch.full(shape, 0.02),))}, 1.0)
        lora = sampled(self.latent("joint", 1), log2_alpha=0.0)
        on_path = sampled(self.latent("joint", 1), plan=diagonal)
        self.model = whole
        found["lora"] = [max(map(error, on_path, lora)), min(map(error, on_path, usual))]

        seen = []
        network = whole.model
        exact = sampled(self.latent("joint", 1), plan=diagonal)
        cached = [sampled(self.latent("joint", 1), plan=replace(diagonal, block_cache=1e-6))]
        rest = BlockCache.rest
        # A model with random weights changes too much between steps: here everything is near enough.
        BlockCache.rest = lambda cache, first, key: setattr(cache, "threshold", 1e9) or rest(cache, first, key)
        cached.append(sampled(self.latent("joint", 1), plan=replace(diagonal, block_cache=0.5)))
        BlockCache.rest = rest
        found["block cache"] = [max(map(error, result, exact)) for result in cached]

        def preparing(model, total):
            return lambda step, x0, x, _total: seen.append((step, x0, network.preview.depth, total))

        prepare, latent_preview.prepare_callback = latent_preview.prepare_callback, preparing
        out = sampled(self.latent("joint", 1), plan=diagonal)
        found["previews"] = {
            "steps": [step for step, *_ in seen],
            "total": seen[-1][3],
            "last": max(error(a, b) for a, b in zip(seen[-1][1].unbind(), out, strict=True)),
            "depth": error(seen[-1][2], out[1]),
        }
        seen.clear()

        def stopping(model, total):
            return lambda step, *_: (seen.append(step), comfy.model_management.interrupt_current_processing(step == 1))

        latent_preview.prepare_callback = stopping
        try:
            sampled(self.latent("joint", 1), plan=diagonal)
        except comfy.model_management.InterruptProcessingException:
            found["interrupted after"] = seen[-1]
        latent_preview.prepare_callback = prepare

        said, notice = [], core_sampler.notice
        core_sampler.notice = said.append
        for mode in ("joint", "i2d", "d2i"):
            sampled(self.latent(mode, 1), plan=plan(kind="tilt"))
        sampled(self.latent("i2d", 1), plan=plan(kind="i2d", log2_alpha=-5.0))
        core_sampler.notice = notice
        found["advice"] = said

        # Of a depth map with holes the model sees the same noise there at every level of the path.
        holes = self.latent("d2i", 1)
        depth = holes["samples"].unbind()[1]
        patch = int(depth.shape[1] ** 0.5)
        valid = (
            self.torch.rand(1, *depth.shape[2:], patch, patch, generator=self.torch.Generator().manual_seed(2)) > 0.9
        )
        missing = ~valid.flatten(3).flatten(1, 2)
        record = {"depth_valid": valid.transpose(2, 3).flatten(3).flatten(1, 2)}
        states = []
        hook = network.diffusion_model.depth_in.register_forward_pre_hook(lambda _, given: states.append(given[0][:1]))
        out = sampled(holes | record, control_strength=0.6)
        hook.remove()
        found["holes"] = max(error(state[missing], states[0][missing]) for state in states)
        found["holes unchanged"] = self.torch.equal(out[1], depth)
        found["holes in advanced"] = {
            name: self.holes_in_advanced(holes | record, sampled, plan(**spec))
            for name, spec in {
                "strict": {"kind": "d2i"},
                "loose": {"kind": "d2i", "log2_alpha": -4.0},
                "started from": {"kind": "tilt", "log2_alpha": 0.0, "start_depth": 0.6},
            }.items()
        }
        return found

    def holes_in_advanced(self, latent, sampled, plan):
        """How far core's sampler is from MF Sampler on depth with holes, and MF Sampler from depth without."""
        from pack_under_test.nodes.host.core_sampler import draw_noise
        from pack_under_test.nodes.host.joint_latent import JointSamples, split
        from pack_under_test.nodes.host.path_sampler import PathSampler

        if plan.spec.kind == "tilt":
            latent = latent.copy()
            del latent["noise_mask"]
        wanted = sampled(latent, plan=plan)
        conditioning = [[[text[:1], *rest]] for ((text, *rest),) in self.conditioning]
        noise = draw_noise(*split(latent), [7])
        outputs = self.advanced(latent, noise, PathSampler(plan), 2.5, conditioning=conditioning)
        streams = outputs[0]["samples"].unbind()
        rgb, depth = split(latent)
        whole = latent | {"samples": JointSamples([rgb, depth + 1e-6])}  # nothing is known of this other depth
        del whole["depth_valid"]
        return {
            "equal": all(map(self.torch.equal, streams, wanted)),
            "seen": error(sampled(whole, plan=plan)[0], wanted[0]),
            "record": "depth_valid" in outputs[0],
        }


def tokens(latent):
    return latent.flatten(2).transpose(1, 2).contiguous()


def error(found, wanted):
    return float((found - wanted).norm() / wanted.norm())


def message(call):
    try:
        call()
    except ValueError as problem:
        return str(problem)
    return ""


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
