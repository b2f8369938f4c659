"""Students and teachers that take a guidance scale as an input."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from mforce.mforce_core import load_model, sample
from mforce.mforce_core.model.config import Schedule
from mforce.mforce_core.model.transformer import ModalityForcingTransformer
from mforce.mforce_core.sampling.path import NoisePath
from mforce.training.config import DistillationConfig, RecipeConfig
from mforce.training.distillation import start_of
from mforce.training.draws import RowDraws
from mforce.training.jumps import JumpPaths, Jumps
from mforce.training.log import read_log
from mforce.training.recipe import Batch, prepare
from mforce.training.source import open_source
from mforce.training.train import train
from tiny_distillation import GRID, SCALED, batch_of, distillation, jumps_of
from tiny_training import config, write_base


@pytest.fixture(scope="module")
def scaled_base(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One that embeds a guidance scale."""
    folder = tmp_path_factory.mktemp("scaled")
    return write_base(folder, config("distill", data, folder, base=folder, **SCALED))


def test_a_scale_up_to_1_is_no_guidance_as_in_sampling() -> None:
    batch = Batch(torch.zeros(40, 1, 1), torch.ones(40, 1, 1), torch.zeros(40, 1, 1), (1, 1))
    paths = JumpPaths(DistillationConfig(cfg=0.5, i2d_cfg=2.0), RecipeConfig(), Schedule())
    jumps = paths.draw(batch, RowDraws(0, 0, range(40)))
    assert set(jumps.cfg.tolist()) == {1.0, 2.0}


@pytest.mark.parametrize("teacher_scale", ["cfg", "input"])
def test_the_teacher_is_guided_at_the_students_scale(scaled_base: Path, teacher_scale: str) -> None:
    """At two scales in one batch, each against the sampler with that guidance."""
    generator = torch.Generator().manual_seed(0)
    model, scales = load_model(scaled_base, dtype=torch.float32), torch.tensor([1.5, 5.0])
    batch, null_text = batch_of(2, generator), torch.randn(2, 8, generator=generator)
    settings = DistillationConfig(teacher_scale=teacher_scale)
    levels = [(0.9, 1.0), (0.7, 0.8), (0.4, 0.5), (0.4, 0.5)]
    jumps = jumps_of(levels, batch, generator, cfg=1.0)._replace(scale=scales)
    by_cfg = teacher_scale == "cfg"
    jumps = jumps._replace(cfg=scales if by_cfg else torch.ones(2), teacher_scale=torch.ones(2) if by_cfg else scales)
    state = start_of(batch, jumps)
    field = distillation(model, model, null_text, guided=settings.guided(embeds=True))
    wanted = field.mean_velocity(batch, jumps, state)
    for row, scale in enumerate(scales.tolist()):
        one = slice(row, row + 1)
        there = sample(
            model,
            batch.text[one],
            GRID,
            cfg=scale if by_cfg else 1.0,
            guidance=1.0 if by_cfg else scale,
            null_text=null_text[None],
            rgb=batch.rgb[one],
            depth=batch.depth[one],
            noise=(jumps.rgb[one], jumps.depth[one]),
            path=NoisePath(*torch.tensor(levels[:3]).unbind(1)),
        )
        for stream, length in enumerate((-0.5, -0.5)):
            found = state[stream][one] + length * wanted[stream][one]
            torch.testing.assert_close(found, there[stream], rtol=1e-4, atol=1e-4)


def test_the_student_gets_the_scale_and_its_teacher_the_guidance() -> None:
    count = 4000
    batch = Batch(torch.zeros(count, 1, 1), torch.ones(count, 1, 1), torch.zeros(count, 1, 1), (1, 1))

    def drawn(embeds: bool = True, **settings) -> Jumps:
        settings = DistillationConfig(path="tilt log2_alpha=0", other_paths=(), **settings)
        paths = JumpPaths(settings, RecipeConfig(), Schedule(), embeds=embeds)
        return paths.draw(batch, RowDraws(0, 0, range(count)))

    jumps, plain = drawn(scales=(2.0, 6.0)), drawn(embeds=False)
    i2d = (jumps.levels[:, :, 0] == 0).all(1)
    assert jumps.scale.min() >= 2
    assert jumps.scale.max() <= 6
    assert jumps.scale.mean() == pytest.approx(4, abs=0.1)
    assert jumps.scale[i2d].std() == pytest.approx(4 / 12**0.5, abs=0.1)  # uniform there, too
    assert torch.equal(jumps.cfg[~i2d], jumps.scale[~i2d])
    assert set(jumps.cfg[i2d].tolist()) == set(jumps.teacher_scale.tolist()) == {1.0}
    by_input = drawn(scales=(2.0, 6.0), teacher_scale="input")
    assert torch.equal(by_input.teacher_scale, jumps.scale)
    assert set(by_input.cfg.tolist()) == {1.0}
    # Of a model without one nothing changes.
    assert plain.scale is plain.teacher_scale is None
    assert all(torch.equal(getattr(plain, name), getattr(jumps, name)) for name in ("rgb", "depth", "levels", "empty"))
    with pytest.raises(ValueError, match="the lower one first"):
        DistillationConfig(scales=(4.0, 2.0))


def test_a_student_learns_its_scale(data: Path, scaled_base: Path, tmp_path: Path) -> None:
    """What its answers change with the scale becomes what guidance changes in its teacher's; at first it is nothing
    like it."""
    more = SCALED | {"distillation.scales": "[1.0, 8.0]", "recipe.probability_i2d": 0.0, "steps": 100, "batch_size": 8}
    more |= {"optimizer.learning_rate": 3e-3, "optimizer.warmup_steps": 2, "optimizer.ema_decay": 0.0}
    more |= {"heldout.latents": data, "heldout.samples": 4, "heldout.every": 100}
    made = config("distill", data, tmp_path, base=scaled_base, **more)
    train(made)
    assert any("heldout_absrel" in entry for entry in read_log(tmp_path))
    student, teacher = (load_model(folder, dtype=torch.float32) for folder in (tmp_path / "model", scaled_base))
    source = open_source(made, depth=True, device=torch.device("cpu"))
    rows = RowDraws(9, 0, range(8))
    batch = prepare(source.batch(0, slice(0, 8)), source.null_text, 0.0, made.recipe, 4, rows)
    jumps = JumpPaths(made.distillation, made.recipe, Schedule(), embeds=True).draw(batch, rows)
    state, start = start_of(batch, jumps), jumps.levels[:, 0]

    def wanted(scale: float) -> list[Tensor]:
        """Velocity and clean depth."""
        guided = jumps._replace(cfg=torch.full((8,), scale))
        mean = distillation(student, teacher, source.null_text).mean_velocity(batch, guided, state)
        return [mean.rgb, state.depth - start[:, 1, None, None] * mean.depth]

    def answers(model: ModalityForcingTransformer, scale: float) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            return model(*state, batch.text, *start.unbind(1), GRID, torch.full((8,), scale))

    for stream, guidance in enumerate(high - low for high, low in zip(wanted(8.0), wanted(1.0), strict=True)):
        by_model = {}
        for name, model in (("student", student), ("teacher", teacher)):
            change = answers(model, 8.0)[stream] - answers(model, 1.0)[stream]
            by_model[name] = float(torch.cosine_similarity(change.flatten(), guidance.flatten(), dim=0))
        assert by_model["student"] > 0.4, by_model
        assert abs(by_model["teacher"]) < 0.2, by_model
