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


@pytest.mark.parametrize(("size", "named"), [("370m", 370e6), ("750m", 750e6), ("1500m", 1.5e9), ("3300m", 3.3e9)])
def test_the_scaling_suite_has_the_sizes_of_its_names(size: str, named: float) -> None:
    assert parameters(f"scale-{size}-t2i") == pytest.approx(named, rel=0.03)
    stages = [read_train_config(Path(f"scale-{size}-{stage}"), []).sizes() for stage in ("t2i", "mf")]
    assert {(sizes.depth_double, sizes.depth_single) for sizes in stages} == {(4, 17)}


def test_klein_9b_has_the_size_of_the_release() -> None:
    """SPEC: 11.99 B parameters."""
    assert parameters("klein-9b") == pytest.approx(11.99e9, rel=1e-3)


def test_operations_are_those_of_a_count_by_hand() -> None:
    """Two operations a weight and token, four a pair of tokens and channel; backward twice forward."""
    config = read_train_config(Path("scale-370m-t2i"), [])
    sizes, text, image = config.sizes(), 512, 1024
    length, channels = text + image, sizes.hidden_size
    per_stream = channels * channels * (4 + 3 * sizes.mlp_ratio)
    layers = sizes.depth_double + sizes.depth_single
    matrices = 2 * per_stream * length * layers + 2 * channels * (text * sizes.context_in_dim + 2 * image * 128)
    by_hand = matrices + 4 * length * length * channels * layers
    costs = count_costs(config)
    assert costs.forward_flops == pytest.approx(by_hand, rel=0.01)
    assert costs.backward_flops == pytest.approx(2 * by_hand, rel=0.02)


def test_state_is_shared_and_depth_only_training_has_less_of_it() -> None:
    teacher = "recipe.distillation_low=0.1"
    config = read_train_config(Path("scale-370m-mf"), [teacher])
    costs, count = count_costs(config), parameters("scale-370m-mf")
    sharded = read_train_config(Path("scale-370m-mf"), ["scale.reduce_gradients=micro_batch", teacher])
    one, eight = plan(config, costs, 1), plan(sharded, costs, 8)
    assert one.gradients == one.average == 4 * count
    assert one.optimizer == 8 * count
    assert eight.gradients * 8 == one.gradients == plan(config, costs, 8).gradients
    assert eight.seconds == pytest.approx(one.seconds / 8)
    assert one.checkpointed < 0.25 * one.activations
    depth = read_train_config(Path("scale-370m-mf"), ["trainable=depth", teacher])
    less = plan(depth, count_costs(depth), 1)
    assert less.gradients < 0.5 * one.gradients
    assert less.teacher == 0 < one.teacher


def test_activations_are_near_what_autograd_keeps_on_a_real_device() -> None:
    """The fused attention of the CPU keeps no matrix; what else is kept is the same on the meta device."""
    small = ["architecture.hidden_size=64", "architecture.num_heads=2", "architecture.axes_dim=[8, 8, 8, 8]"]
    config = read_train_config(Path("nano-mf"), [*small, "precision=float32"])
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
