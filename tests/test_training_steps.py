"""What a step costs: waits for the device, reductions between processes, copies of weights; and one Muon for all."""

import json
from pathlib import Path

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from mforce.training.initialize import MasterWeightLinear
from mforce.training.muon import Muon
from mforce.training.processes import join
from mforce.training.train import Trainer
from tiny_training import arguments, config, write_base
from two_processes import run_on_two

CUDA = pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"))


@pytest.fixture(scope="module")
def base(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    return write_base(folder, config("t2i", data, folder))


class _Reads(TorchDispatchMode):
    """Tensors whose values the host asks for."""

    def __init__(self) -> None:
        super().__init__()
        self.tensors: list[torch.Tensor] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func is torch.ops.aten._local_scalar_dense.default:
            self.tensors.append(args[0])
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_the_host_reads_nothing_in_a_step(data: Path, base: Path, tmp_path: Path, optimizer: str) -> None:
    """But for AdamW's own counts of steps, which lie on the CPU wherever the model is."""
    trainer = Trainer(config("mf", data, tmp_path, base=base, **{"optimizer.name": optimizer}), join("cpu"))
    trainer.train_step()
    with _Reads() as reads:
        trainer.train_step()
    counts = {id(s["step"]) for o in trainer.state.optimizers for s in o.state.values() if "step" in s}
    assert [t for t in reads.tensors if id(t) not in counts] == []
    with _Reads() as reads:
        trainer.measures()
    assert reads.tensors
    trainer.close()


@pytest.mark.parametrize("device", [CUDA])
def test_a_step_waits_for_no_gpu(data: Path, base: Path, tmp_path: Path, device: str) -> None:
    trainer = Trainer(config("mf", data, tmp_path, base=base, device=device), join(device))
    trainer.train_step()
    torch.cuda.set_sync_debug_mode("error")
    try:
        trainer.train_step()
        with pytest.raises(RuntimeError, match="synchroniz"):
            trainer.measures()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    trainer.close()


def test_weights_are_kept_once_from_forward_to_backward() -> None:
    """Autograd holds the stored weight alone; the gradients are those of the product that keeps a copy."""
    layer = MasterWeightLinear(48, 64, bias=False)
    x = torch.randn(2, 5, 48, dtype=torch.bfloat16, requires_grad=True)
    kept: list[torch.Tensor] = []

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        y = layer(x)
    assert {tensor.data_ptr() for tensor in kept} == {x.data_ptr(), layer.weight.data_ptr()}
    found = torch.autograd.grad(y.float().square().sum(), (x, layer.weight))
    wanted_y = torch.nn.functional.linear(x, layer.weight.to(x))
    wanted = torch.autograd.grad(wanted_y.float().square().sum(), (x, layer.weight))
    assert torch.equal(y, wanted_y)
    assert found[1].dtype == torch.float32
    for ours, theirs in zip(found, wanted, strict=True):
        assert torch.equal(ours, theirs)


def test_muon_is_torchs() -> None:
    generator = torch.Generator().manual_seed(0)
    start = [torch.randn(shape, generator=generator) for shape in ((24, 16), (16, 40))]
    ours, theirs = ([torch.nn.Parameter(value.clone()) for value in start] for _ in range(2))
    optimizers = (
        Muon(ours, lr=0.02, weight_decay=0.1),
        torch.optim.Muon(theirs, lr=0.02, weight_decay=0.1, adjust_lr_fn="match_rms_adamw"),
    )
    for _ in range(4):
        for pair in zip(ours, theirs, strict=True):
            gradient = torch.randn(pair[0].shape, generator=generator)
            for parameter in pair:
                parameter.grad = gradient.clone()
        for optimizer in optimizers:
            optimizer.step()
    for ours_now, theirs_now, before in zip(ours, theirs, start, strict=True):
        assert not torch.equal(ours_now, before)
        torch.testing.assert_close(ours_now, theirs_now, rtol=1e-6, atol=1e-6)


_COUNT = """
import json, sys
from pathlib import Path
from torch.utils._python_dispatch import TorchDispatchMode
from mforce.training.config_file import read_train_config
from mforce.training.processes import join, leave
from mforce.training.train import Trainer

class Reductions(TorchDispatchMode):
    count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += "reduce_scatter" in str(func)
        return func(*args, **(kwargs or {}))

processes = join("cpu")
found = {}
for when in ("step", "micro_batch"):
    out = f"out={sys.argv[1]}/{when}"
    config = read_train_config(Path("_small-mf"), [*sys.argv[2:], out, f"scale.reduce_gradients={when}"])
    trainer = Trainer(config, processes)
    with Reductions() as reductions:
        trainer.train_step()
    first = trainer.measures()
    trainer.train_step()
    found[when] = {"reductions": reductions.count, "losses": [first, trainer.measures()]}
    trainer.close()
if processes.first:
    Path(sys.argv[1], "found.json").write_text(json.dumps(found))
leave()
"""


def test_processes_add_up_gradients_once_per_step(data: Path, base: Path, tmp_path: Path) -> None:
    """In two micro-batches per process: half the reductions, the same training."""
    script = tmp_path / "count.py"
    script.write_text(_COUNT)
    more = {"base": base, "scale.micro_batch_size": 1, "optimizer.name": "adamw"}
    run_on_two(script, [str(tmp_path), *arguments("mf", data, tmp_path, **more)], tmp_path)
    found = json.loads((tmp_path / "found.json").read_text())
    once, each = found["step"], found["micro_batch"]
    assert each["reductions"] == 2 * once["reductions"] > 0
    for ours, theirs in zip(once["losses"], each["losses"], strict=True):
        assert ours == pytest.approx(theirs, rel=1e-5)
