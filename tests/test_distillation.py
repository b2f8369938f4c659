"""Few-step distillation against formulations of its own: the sampler, MeanFlow with exact derivatives, counts."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from torch import Tensor, nn

from mforce.mforce_core import load_model, sample
from mforce.mforce_core.model.config import ConfigError, Schedule
from mforce.mforce_core.model.transformer import ModalityForcingTransformer
from mforce.mforce_core.parts import model_path
from mforce.mforce_core.sampling.path import NoisePath
from mforce.training.config import DistillationConfig, RecipeConfig
from mforce.training.distillation import start_of
from mforce.training.draws import RowDraws
from mforce.training.export import parts_of
from mforce.training.jumps import PARTS, JumpPaths, Jumps, teacher_places
from mforce.training.log import read_log
from mforce.training.losses import Totals
from mforce.training.processes import join
from mforce.training.recipe import Batch
from mforce.training.train import Trainer, train
from tiny_distillation import GRID, SCALED, batch_of, distillation, jumps_of
from tiny_training import arguments, config, write_base
from two_processes import train_on_two


@pytest.fixture(scope="module")
def base(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    return write_base(folder, config("distill", data, folder, base=folder))


@pytest.fixture(scope="module")
def model(base: Path) -> ModalityForcingTransformer:
    return load_model(base, dtype=torch.float32)


@pytest.mark.parametrize(
    ("mode", "spec"),
    [
        ("joint", "points 1,1 0,1 0,0"),
        ("joint", "tilt log2_alpha=5"),
        ("joint", "tilt log2_alpha=-5"),
        ("i2d", "i2d"),
        ("d2i", "d2i"),
    ],
)
@pytest.mark.parametrize("number", [0, 2, 3])
def test_one_step_of_a_perfect_student_ends_where_the_sampler_does(
    model: ModalityForcingTransformer, mode: str, spec: str, number: int
) -> None:
    """The sampler, which is tested against the release, takes the teacher's steps from the same state."""
    generator = torch.Generator().manual_seed(number)
    batch, null_text = batch_of(3, generator), torch.randn(2, 8, generator=generator)
    settings = DistillationConfig(path=spec if mode == "joint" else "tilt", other_paths=(), path_share=1)
    paths = JumpPaths(settings, RecipeConfig(), Schedule())
    start = torch.tensor([number * PARTS])
    places = teacher_places(start, start + PARTS, settings)[0]
    levels = paths.levels[{"i2d": 0, "d2i": 1, "joint": 2}[mode]][places].tolist()
    jumps = jumps_of([*levels, levels[-1]], batch, generator, cfg=4.0)

    state = start_of(batch, jumps)
    wanted = distillation(model, model, null_text).mean_velocity(batch, jumps, state)
    way = jumps.levels[0, -1] - jumps.levels[0, 0]
    found = [tokens + length * velocity for tokens, length, velocity in zip(state, way, wanted, strict=True)]

    there = sample(
        model,
        batch.text,
        GRID,
        mode=mode,
        cfg=4.0,
        null_text=null_text[None],
        rgb=batch.rgb,
        depth=batch.depth,
        noise=(jumps.rgb, jumps.depth),
        path=NoisePath(*torch.tensor(levels).unbind(1)),
    )
    given = {"i2d": 0, "d2i": 1}.get(mode)
    for stream, (ours, theirs) in enumerate(zip(found, there, strict=True)):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
        assert stream == given or not torch.allclose(ours, state[stream]) or way[stream] == 0


class Field(nn.Module):
    """A smooth stand-in for a model: velocity and clean depth from states and noise levels, differentiable exactly."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.layers = nn.Sequential(nn.Linear(26, 32), nn.Tanh(), nn.Linear(32, 24)).double()

    def forward(self, rgb: Tensor, depth: Tensor, text: Tensor, t_rgb: Tensor, t_depth: Tensor, grid) -> tuple:
        times = torch.stack((t_rgb, t_depth), dim=-1)[:, None].expand(-1, rgb.shape[1], -1)
        return self.layers(torch.cat((rgb, depth, times), dim=-1)).split((8, 16), dim=-1)

    def velocities(self, rgb: Tensor, depth: Tensor, t_rgb: Tensor, t_depth: Tensor) -> tuple[Tensor, Tensor]:
        velocity, depth_x0 = self(rgb, depth, None, t_rgb, t_depth, None)
        return velocity, (depth - depth_x0) / t_depth[:, None, None]


def test_a_small_share_of_the_teacher_is_mean_flow() -> None:
    """Geng et al., arXiv 2505.13447, eq. 6, with the end of the jump as the target time: u - v + (t - e) du/dt, whose
    derivative along the teacher's trajectory is taken exactly here. Consistency's residual is it times the share."""
    generator = torch.Generator().manual_seed(1)
    batch = Batch(*(x.double() for x in batch_of(3, generator)[:3]), GRID)
    student, teacher = Field(1), Field(2)
    share, start, end = 1e-5, (0.8, 0.6), (0.3, 0.4)
    middle = tuple(t + share * (e - t) for t, e in zip(start, end, strict=True))
    jumps = jumps_of([start, middle, end], batch, generator, cfg=1.0)
    jumps = jumps._replace(levels=torch.tensor([start, middle, end], dtype=torch.float64).expand(3, -1, -1))
    jumps = jumps._replace(rgb=jumps.rgb.double(), depth=jumps.depth.double())
    state = start_of(batch, jumps)
    field = distillation(student, teacher, torch.zeros(2, 8).double(), student_finishes=True, guided=False)
    wanted = field.mean_velocity(batch, jumps, state)

    t_rgb, t_depth = (torch.full((3,), t, dtype=torch.float64) for t in start)
    own = student.velocities(*state, t_rgb, t_depth)
    way = [e - t for t, e in zip(start, end, strict=True)]  # the path's direction: (t_rgb, t_depth) falls along it
    true = teacher.velocities(*state, t_rgb, t_depth)
    tangents = (
        *(length * v for length, v in zip(way, true, strict=True)),
        *(torch.full((3,), w).double() for w in way),
    )
    _, along = torch.func.jvp(student.velocities, (*state, t_rgb, t_depth), tangents)
    for ours, u, v, derivative in zip(wanted, own, true, along, strict=True):
        mean_flow = u - v - derivative  # du/ds over the whole way s = 0..1 is -(t - e) du/dt
        torch.testing.assert_close((u - ours) / share, mean_flow, rtol=1e-3, atol=1e-3)


def test_losses_are_those_of_the_mean_velocity(model: ModalityForcingTransformer) -> None:
    """Counted out in numpy; a stream that stays has no loss."""
    generator = torch.Generator().manual_seed(4)
    batch, null_text = batch_of(3, generator), torch.randn(2, 8, generator=generator)
    jumps = jumps_of([(0.9, 1.0), (0.7, 1.0), (0.7, 1.0)], batch, generator, cfg=2.0)
    moving = jumps.levels.clone()
    moving[1] = torch.tensor([[0.0, 0.8], [0.0, 0.3], [0.0, 0.3]])  # image to depth
    jumps = jumps._replace(levels=moving)
    student = load_model_twin(model)
    field = distillation(student, model, null_text, recipe=RecipeConfig(depth_weighting="uniform", depth_loss_weight=3))
    terms, errors = field(batch, jumps, Totals(3, 0))
    state = start_of(batch, jumps)
    wanted = field.mean_velocity(batch, jumps, state)
    velocity, depth_x0 = student(*state, batch.text, *jumps.levels[:, 0].unbind(1), GRID)
    rgb = np.square((velocity - wanted.rgb).detach().numpy()).mean((1, 2))
    clean = (state.depth - jumps.levels[:, 0, 1, None, None] * wanted.depth).numpy()
    depth = np.square(depth_x0.detach().numpy() - clean).mean((1, 2))
    assert terms["rgb"].item() == pytest.approx((rgb[0] + rgb[2]) / 3, rel=1e-5)
    assert terms["depth"].item() == pytest.approx(3 * depth[1] / 3, rel=1e-5)
    assert errors["rgb"].counted.tolist() == [True, False, True]
    assert errors["depth"].counted.tolist() == [False, True, False]


def test_measured_depth_counts_under_a_clean_picture_alone(model: ModalityForcingTransformer) -> None:
    """Counted out in numpy: of four samples one has a noisy picture, one keeps noise, one was measured in part."""
    generator = torch.Generator().manual_seed(6)
    batch, null_text = batch_of(4, generator), torch.randn(2, 8, generator=generator)
    batch.depth[3, :, 4:] = 0
    jumps = jumps_of([(0.0, 1.0), (0.0, 0.5), (0.0, 0.0)], batch, generator, cfg=1.0)
    levels = jumps.levels.clone()
    levels[1, :, 0] = 0.2
    levels[2, :, 1] = torch.tensor([1.0, 0.9, 0.8])
    jumps, student = jumps._replace(levels=levels), load_model_twin(model)
    recipe = RecipeConfig(depth_weighting="uniform", depth_loss_weight=3)
    plain, field = (distillation(student, model, null_text, recipe=recipe, data_weight=w) for w in (0.0, 0.5))
    terms, without = (one(batch, jumps, Totals(4, 0)).terms for one in (field, plain))
    predicted = student(*start_of(batch, jumps), batch.text, *levels[:, 0].unbind(1), GRID)[1].detach().numpy()
    squared = np.square(predicted - batch.depth.numpy())
    assert terms["data"].item() == pytest.approx(3 * 0.5 * (squared[0].mean() + squared[3, :, :4].mean()) / 4, rel=1e-5)
    assert "data" not in without
    assert all(torch.equal(terms[name], without[name]) for name in without)


def test_a_student_of_data_finds_measured_depth(data: Path, base: Path, tmp_path: Path) -> None:
    """Its teacher knows nothing; two runs on the same batches differ in this term alone."""
    more = {"steps": 60, "batch_size": 8, "recipe.probability_i2d": 1.0, "recipe.probability_d2i": 0.0}
    more |= {"distillation.steps": 1, "distillation.between": 0.0, "recipe.sparse_probability": 0}
    more |= {"optimizer.learning_rate": 1e-2, "optimizer.warmup_steps": 2, "optimizer.cooldown_steps": 20}
    more |= {"heldout.latents": data, "heldout.samples": 8, "heldout.every": 60, "optimizer.ema_decay": 0.0}
    absrel = []
    for weight in (0.0, 100.0):
        out = tmp_path / f"{weight}"
        train(config("distill", data, out, base=base, **more | {"distillation.data_weight": weight}))
        absrel += [entry["heldout_absrel"] for entry in read_log(out) if "heldout_absrel" in entry]
    assert absrel[1] < 0.7 * absrel[0]


def load_model_twin(model: ModalityForcingTransformer) -> ModalityForcingTransformer:
    """A student that is not its teacher."""
    twin = ModalityForcingTransformer(model.config, dtype=torch.float32)
    twin.load_state_dict({name: tensor + 0.01 for name, tensor in model.state_dict().items()})
    return twin


def test_jumps_are_drawn_as_configured() -> None:
    count = 4000
    settings = DistillationConfig(between=0.25, path="tilt log2_alpha=0", other_paths=())
    paths = JumpPaths(settings, RecipeConfig(probability_i2d=0.2, probability_d2i=0.3), Schedule())
    batch = Batch(torch.zeros(count, 1, 1), torch.ones(count, 1, 1), torch.zeros(count, 1, 1), (1, 1))
    jumps = paths.draw(batch, RowDraws(0, 0, range(count)))
    rgb, depth = jumps.levels[:, :, 0], jumps.levels[:, :, 1]
    i2d, d2i = (rgb == 0).all(1), (depth == 0).all(1)
    assert i2d.float().mean() == pytest.approx(0.2, abs=0.03)
    assert d2i.float().mean() == pytest.approx(0.3, abs=0.03)
    assert (jumps.levels.diff(dim=1) <= 0).all()
    assert ((jumps.levels[:, -1] < jumps.levels[:, 0]).any(1)).all()
    assert set(jumps.cfg[d2i].tolist()) == {4.0}
    assert jumps.empty.float().mean() == pytest.approx(0.1, abs=0.03)
    assert not jumps.empty[~i2d].any()
    starts = {round(float(t), 4) for t in rgb[d2i, 0]}
    on_grid = {round(float(t), 4) for t in paths.levels[1, ::PARTS, 0]}
    assert on_grid - {0.0} <= starts
    between = torch.tensor([round(float(t), 4) not in on_grid for t in rgb[d2i, 0]])
    assert between.float().mean() == pytest.approx(0.25, abs=0.05)
    again = paths.draw(batch, RowDraws(0, 0, range(count)))
    assert all(torch.equal(a, b) for a, b in zip(jumps[:5], again[:5], strict=True))


def test_a_sample_without_depth_is_trained_only_while_its_depth_is_noise() -> None:
    paths = JumpPaths(DistillationConfig(), RecipeConfig(), Schedule())
    batch = Batch(torch.zeros(400, 1, 1), torch.zeros(400, 1, 1), torch.zeros(400, 1, 1), (1, 1))
    levels = paths.draw(batch, RowDraws(0, 0, range(400))).levels
    moves, noise = (levels[:, -1] < levels[:, 0]).any(1), levels[:, 0, 1] == 1
    assert torch.equal(moves, noise)
    assert 0 < noise.float().mean() < 1


@pytest.mark.parametrize("mode", ["joint", "i2d", "d2i"])
def test_a_student_on_policy_starts_where_the_sampler_brings_it(model: ModalityForcingTransformer, mode: str) -> None:
    """Of three rows the first two are on policy, at the path's beginning and after two of its steps; the third is data.
    The sampler, which is tested against the release, takes the student's steps from the same noise."""
    generator = torch.Generator().manual_seed(8)
    batch, null_text = batch_of(3, generator), torch.randn(2, 8, generator=generator)
    student = load_model_twin(model)
    given = {"i2d": 0, "d2i": 1}.get(mode)
    way = torch.tensor([(1.0, 1.0), (0.8, 0.9), (0.5, 0.7), (0.2, 0.4), (0.0, 0.0)])
    if given is not None:
        way[:, given] = 0
    reached = [0, 2, 2]
    jumps = jumps_of(way[2:4].tolist(), batch, generator, cfg=1.0)
    levels = torch.stack([way[[at, at + 1]] for at in reached])
    before = torch.stack([way[[0, 0, 0, 0]], way[[0, 1, 2, 2]], way[[2, 2, 2, 2]]])
    jumps = jumps._replace(levels=levels, before=before)
    field = distillation(student, model, null_text, guided=False)
    found = field.arrive(batch, jumps)

    mixed = start_of(batch, jumps._replace(before=None))
    noise = start_of(batch, jumps)
    there = sample(
        student,
        batch.text,
        GRID,
        mode=mode,
        cfg=1.0,
        rgb=batch.rgb,
        depth=batch.depth,
        noise=(jumps.rgb, jumps.depth),
        path=NoisePath(*way[:3].unbind(1)),
    )
    for stream, ours in enumerate(found):
        torch.testing.assert_close(ours[0], noise[stream][0])
        torch.testing.assert_close(ours[1], there[stream][1], rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(ours[2], mixed[stream][2])
        assert stream == given or not torch.allclose(ours[1], mixed[stream][1], atol=1e-2)
    # What is learned is asked from there.
    start = levels[:, 0]
    velocity, depth_x0 = student(*found, batch.text, *start.unbind(1), GRID)
    wanted = field.mean_velocity(batch, jumps, found)
    clean = found.depth - start[:, 1, None, None].clamp(min=0.05) * wanted.depth
    if mode != "i2d":
        loss = (velocity - wanted.rgb).square().mean((1, 2)).sum() / 3
        torch.testing.assert_close(field(batch, jumps, Totals(3, 0)).terms["rgb"], loss, rtol=1e-4, atol=1e-6)
    if mode != "d2i":
        loss = (depth_x0 - clean).square().mean((1, 2)).sum() / 3
        torch.testing.assert_close(field(batch, jumps, Totals(3, 0)).terms["depth"], loss, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("measured", [True, False])
def test_samples_are_on_policy_as_often_as_configured(measured: bool) -> None:
    """At the beginning of a step alone; all else is drawn as without. Depth that nobody measured can be the student's
    own, and is trained then."""
    count = 4000
    depth = torch.full((count, 1, 1), float(measured))
    batch = Batch(torch.zeros(count, 1, 1), depth, torch.zeros(count, 1, 1), (1, 1))

    def drawn(share: float) -> tuple[JumpPaths, Jumps]:
        settings = DistillationConfig(path="tilt log2_alpha=0", other_paths=(), on_policy=share)
        paths = JumpPaths(settings, RecipeConfig(), Schedule())
        return paths, paths.draw(batch, RowDraws(0, 0, range(count)))

    (_, plain), (paths, jumps) = drawn(0.0), drawn(0.6)
    assert plain.before is None
    assert jumps.before is not None
    assert torch.equal(jumps.before[:, -1], jumps.levels[:, 0])
    begins = (jumps.levels[:, None, 0] == paths.levels[:, ::PARTS][:, :-1].flatten(0, 1)).all(-1).any(1)
    later = begins & (jumps.levels[:, 0].amax(1) < 1) & (jumps.levels[:, -1] < jumps.levels[:, 0]).any(1)
    own = (jumps.before[:, 0] != jumps.before[:, -1]).any(1)
    assert not own[~later].any()
    assert (jumps.before[own, 0].amax(1) == 1).all()
    if measured:
        assert own[later].float().mean() == pytest.approx(0.6, abs=0.05)
        kept = ("rgb", "depth", "levels", "cfg", "empty")
        assert all(torch.equal(getattr(plain, name), getattr(jumps, name)) for name in kept)
    else:
        moves = (jumps.levels[:, -1] < jumps.levels[:, 0]).any(1)
        assert torch.equal(moves, own | (jumps.levels[:, 0, 1] == 1))
        assert own.any()
    # Every place on the way is one of the student's own steps.
    ways = paths.levels[:, ::PARTS]
    assert all(any(torch.equal(a, b) for b in ways[:, :4].flatten(0, 1)) for a in jumps.before[own].flatten(0, 1)[:200])


@pytest.mark.parametrize("share", [0.25, 1.0])
def test_joint_samples_are_on_the_models_own_path_as_often_as_configured(share: float) -> None:
    settings = DistillationConfig(
        path="points 1,1 0,1 0,0", path_share=share, other_paths=("tilt", "tilt log2_alpha=0")
    )
    paths = JumpPaths(settings, RecipeConfig(), Schedule())
    counts = paths.joint_path(torch.rand(8000, generator=torch.Generator().manual_seed(0))).bincount(minlength=5) / 8000
    wanted = torch.tensor([0, 0, share, (1 - share) / 2, (1 - share) / 2])
    torch.testing.assert_close(counts, wanted, rtol=0, atol=0.02)


@pytest.mark.parametrize(("share", "on_policy"), [(1.0, 0.0), (0.25, 0.0), (1.0, 0.75)])
def test_a_student_nears_its_teacher_which_stays(
    data: Path, base: Path, tmp_path: Path, share: float, on_policy: float
) -> None:
    made = config(
        "distill", data, tmp_path, base=base, steps=60, batch_size=8, log_every=10,
        **{"distillation.teacher_share": share, "distillation.on_policy": on_policy},
        **{"optimizer.learning_rate": 3e-3, "optimizer.warmup_steps": 5},
    )  # fmt: skip
    trainer = Trainer(made, join("cpu"))
    before = {name: tensor.clone() for name, tensor in trainer.losses.teacher.model.state_dict().items()}
    means = []
    for _ in range(6):
        for _ in range(10):
            trainer.train_step()
        values = trainer.measures()
        means.append(values["rgb"] + values["depth"])
    trainer.close()
    assert means[-1] < 0.7 * means[0]
    assert all(torch.equal(before[name], tensor) for name, tensor in trainer.losses.teacher.model.state_dict().items())


def test_a_lora_student_is_the_teacher_without_its_updates(data: Path, base: Path, tmp_path: Path) -> None:
    made = config("distill", data, tmp_path, base=base, steps=4, trainable="lora", **{"lora.rank": 2})
    train(made)
    with safe_open(tmp_path / "lora.safetensors", "pt") as file:
        pairs = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    ups = {name.split("diffusion_model.")[1].split(".lora_B")[0] for name in pairs if ".lora_B." in name}
    assert {"double_blocks.0.depth_attn.qkv", "double_blocks.0.img_mlp.0", "depth_decoder_blocks.0.linear2"} <= ups
    merged, teacher = (load_model(folder, dtype=torch.float32).state_dict() for folder in (tmp_path / "model", base))
    for name, tensor in teacher.items():
        layer = name.removesuffix(".weight")
        update = 0
        if layer in ups:
            down, up = (pairs[f"diffusion_model.{layer}.lora_{half}.weight"].float() for half in "AB")
            update = 16 / 2 * up @ down
            assert update.abs().max() > 0
        torch.testing.assert_close(merged[name], tensor + update, rtol=1e-2, atol=2e-2)


def test_a_student_has_the_parts_of_its_teacher(base: Path, tmp_path: Path) -> None:
    """Where nothing else names them: the built-in model's autoencoder lies beside it."""
    made = config("distill", base, tmp_path, base=model_path("nano"))
    assert parts_of(made)["vae"] == model_path("nano")
    assert "vae" not in parts_of(config("distill", base, tmp_path, base=base))


def test_what_cannot_be_distilled_is_refused_in_a_sentence(data: Path, base: Path, tmp_path: Path) -> None:
    picture_alone = write_base(tmp_path / "t2i", config("t2i", data, tmp_path))
    with pytest.raises(ConfigError, match="has no depth stream"):
        Trainer(config("distill", data, tmp_path / "a", base=picture_alone), join("cpu"))
    with pytest.raises(ConfigError, match="embed no guidance scale"):
        config("mf", data, tmp_path, base=base, **SCALED)
    with pytest.raises(ConfigError, match=r"no recipe\.terms"):
        config("distill", data, tmp_path, base=base, **{"recipe.terms": '["losses.py:far"]'})


@pytest.mark.parametrize("path", ["tilt restart=0.9,0.5,1", "i2d", "points 0.5,1 0,0", "points 1,1 0,0.2"])
def test_paths_that_do_not_lead_from_noise_to_clean_are_refused(path: str) -> None:
    for settings in (DistillationConfig(path=path), DistillationConfig(other_paths=("tilt", path))):
        with pytest.raises(ValueError, match="from noise to clean without rising"):
            JumpPaths(settings, RecipeConfig(), Schedule())


def test_settings_of_the_run_are_kept(data: Path, base: Path, tmp_path: Path) -> None:
    """Another objective is another run."""
    train(config("distill", data, tmp_path, base=base, steps=2))
    with pytest.raises(ConfigError, match="another distillation"):
        train(config("distill", data, tmp_path, base=base, steps=2, **{"distillation.teacher_steps": 2}))
    assert json.loads((tmp_path / "config.json").read_text())["distillation"]["teacher_steps"] == 4


def test_two_processes_distill_like_one(data: Path, base: Path, tmp_path: Path) -> None:
    """Sharded, in two micro-batches each, the teacher in its file, samples on policy, and a look at held-out ones."""
    more = {"base": base, "steps": 5, "log_every": 1, "distillation.teacher_share": 0.5}
    more |= {"distillation.on_policy": 0.5}
    look = {"heldout.latents": data, "heldout.samples": 4, "heldout.every": 5}
    train(config("distill", data, tmp_path / "one", **more))
    many = more | look | {"scale.micro_batch_size": 1, "scale.teacher": "host"}
    train_on_two("_small-distill", arguments("distill", data, tmp_path / "two", **many), tmp_path)
    one, two = ([entry for entry in read_log(tmp_path / name) if "rgb" in entry] for name in ("one", "two"))
    assert [entry["step"] for entry in two] == [1, 2, 3, 4, 5]
    for ours, theirs in zip(two, one, strict=True):
        assert ours["rgb"] == pytest.approx(theirs["rgb"], rel=1e-3)
        assert ours["depth"] == pytest.approx(theirs["depth"], rel=1e-3)
    assert [entry["step"] for entry in read_log(tmp_path / "two") if "heldout_absrel" in entry] == [5]


@pytest.mark.parametrize("on_policy", [0.0, 0.75])
def test_a_resumed_run_goes_on_as_if_it_had_not_stopped(
    data: Path, base: Path, tmp_path: Path, on_policy: float
) -> None:
    def steps_of(out: Path, count: int) -> dict[str, Tensor]:
        made = config("distill", data, out, base=base, steps=8, **{"distillation.on_policy": on_policy})
        trainer = Trainer(made, join("cpu"))
        for _ in range(count):
            trainer.train_step()
        trainer.save()
        trainer.close()
        return trainer.model.state_dict()

    steps_of(tmp_path / "stopped", 2)
    resumed, whole = steps_of(tmp_path / "stopped", 2), steps_of(tmp_path / "whole", 4)
    assert all(torch.equal(resumed[name], tensor) for name, tensor in whole.items())
    assert not torch.equal(whole["img_in.weight"], load_model(base, dtype=torch.float32).state_dict()["img_in.weight"])
