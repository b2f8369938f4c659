"""The plan against counts by hand and the memory that autograd really keeps; sizes of the presets."""

from pathlib import Path

import pytest
import torch

from mforce.training.config_file import PRESETS, read_train_config
from mforce.training.plan import count_costs, meta_model, plan


def parameters(preset: str) -> int:
    return sum(p.numel() for p in meta_model(read_train_config(Path(preset), [])).parameters())


@pytest.mark.parametrize("preset", sorted(path.stem for path in PRESETS.glob("[!_]*.toml")))
def test_every_preset_is_valid(preset: str) -> None:
    assert read_train_config(Path(preset), []).out.name.startswith(preset)


@pytest.mark.parametrize(
    ("size", "named", "width", "hidden"),
    [("370m", 370e6, 1024, 3072), ("800m", 800e6, 1536, 4608), ("3300m", 3.3e9, 3072, 9216)],
)
def test_the_scaling_suite_is_that_of_table_2(size: str, named: float, width: int, hidden: int) -> None:
    """Widths as in the table; the 30 blocks have the named number of parameters, all else comes on top."""
    for stage in ("t2i-128m", "t2i-640m", "t2i-1920m", "mf-0", "mf-128m", "mf-640m", "mf-1920m"):
        config = read_train_config(Path(f"scale-{size}-{stage}"), [])
        sizes = config.sizes()
        assert (sizes.hidden_size, sizes.mlp_dim, sizes.depth_double, sizes.depth_single) == (width, hidden, 0, 30)
        assert (sizes.rgb_prediction, config.data.size, config.distils) == ("clean", (256, 256), False)
        if stage.startswith("t2i"):
            images = {"128m": 128e6, "640m": 640e6, "1920m": 1.92e9}[stage[4:]]
            assert config.steps * config.batch_size == images
        else:
            t2i = "t2i" + stage[2:]
            assert config.base == (None if stage == "mf-0" else Path(f"runs/scale-{size}-{t2i}/model"))
    model = meta_model(read_train_config(Path(f"scale-{size}-t2i-128m"), []))
    blocks = sum(p.numel() for name, p in model.named_parameters() if name.startswith("single_blocks."))
    assert blocks == pytest.approx(named, rel=0.03)
    assert parameters(f"scale-{size}-t2i-128m") == pytest.approx(named, rel=0.06)


def test_klein_9b_has_the_size_of_the_release() -> None:
    """SPEC: 11.99 B parameters."""
    assert parameters("klein-9b") == pytest.approx(11.99e9, rel=1e-3)


def test_operations_are_those_of_a_count_by_hand() -> None:
    """Two operations a weight and token, four a pair of tokens and channel; backward twice forward."""
    config = read_train_config(Path("scale-370m-t2i-128m"), [])
    text, image, channels, layers = 512, 256, 1024, 30
    length = text + image
    weights = channels * channels * (1 + 2 / 4 + 1 + 3 * 3)  # queries, keys and values of a quarter, output, MLP
    matrices = 2 * weights * length * layers + 2 * channels * (text * 7680 + 2 * image * 128)
    by_hand = matrices + 4 * length * length * channels * layers
    costs = count_costs(config)
    assert costs.forward_flops == pytest.approx(by_hand, rel=0.01)
    assert costs.backward_flops == pytest.approx(2 * by_hand, rel=0.02)


def test_state_is_shared_and_depth_only_training_has_less_of_it() -> None:
    teacher = "recipe.distillation_low=0.1"
    config = read_train_config(Path("scale-370m-mf-128m"), [teacher])
    costs, count = count_costs(config), parameters("scale-370m-mf-128m")
    sharded = read_train_config(Path("scale-370m-mf-128m"), ["scale.reduce_gradients=micro_batch", teacher])
    one, eight = plan(config, costs, 1), plan(sharded, costs, 8)
    assert one.gradients == one.average == 4 * count
    assert one.optimizer == 8 * count
    assert eight.gradients * 8 == one.gradients == plan(config, costs, 8).gradients
    assert eight.seconds == pytest.approx(one.seconds / 8)
    assert one.checkpointed < 0.25 * one.activations
    depth = read_train_config(Path("scale-370m-mf-128m"), ["trainable=depth", teacher])
    less = plan(depth, count_costs(depth), 1)
    assert less.gradients < 0.5 * one.gradients
    assert less.teacher == 0 < one.teacher


def test_activations_are_near_what_autograd_keeps_on_a_real_device() -> None:
    """The fused attention of the CPU keeps no matrix; what else is kept is the same on the meta device."""
    small = ["architecture.hidden_size=64", "architecture.num_heads=2", "architecture.axes_dim=[8, 8, 8, 8]"]
    config = read_train_config(Path("_small-mf"), [*small, "precision=float32"])
    model = meta_model(config).to_empty(device="cpu").requires_grad_(True)
    weights, kept = {p.data_ptr() for p in model.parameters()}, {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    inputs = torch.randn(1, 64, 128), torch.randn(1, 64, 256), torch.randn(1, 16, 128)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.02)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        model(*inputs, torch.ones(1), torch.ones(1), (8, 8))
    real = sum(t.untyped_storage().nbytes() for pointer, t in kept.items() if pointer not in weights)
    assert count_costs(config).kept == pytest.approx(real, rel=0.25)


def test_a_critic_is_trained_like_its_student() -> None:
    """All once more but the average; the teacher looks once more, at where the student's steps land."""
    both = ["distillation.matching_weight=1.0"]
    plans, passes = [], []
    alone, own = [*both, "distillation.trajectory_weight=0.0"], ["distillation.on_policy=0.5"]
    for more in ([], both, alone, own):
        config = read_train_config(Path("nano-distill"), ["distillation.on_policy=0", *more])
        costs = count_costs(config)
        plans.append(plan(config, costs, 1))
        passes.append(costs.teacher_flops / costs.forward_flops)
    without, critic = plans[:2]
    # Four guided steps of a trajectory, one guided look, three of the student's own steps.
    assert passes == [8, 10, 2, 11]
    assert critic.gradients == 2 * without.gradients
    assert critic.optimizer == 2 * without.optimizer
    assert critic.activations == 2 * without.activations
    assert (critic.average, critic.teacher) == (without.average, without.teacher)
    assert critic.weights - without.weights == 4 * parameters("nano-distill")
    assert critic.flops - without.flops == pytest.approx(without.flops * (3 + 2) / (3 + 8), rel=0.02)
