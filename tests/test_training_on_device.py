"""Samples that lie on the device: the same batches as those that are read, and random numbers for blocks of it."""

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from mforce.mforce_core.model.config import ConfigError
from mforce.training.beside import Beside
from mforce.training.config import RecipeConfig
from mforce.training.data.encode import NULL_TEXT_FILE
from mforce.training.data.encoded import EncodedSource
from mforce.training.data.resident import ResidentSource, resident_bytes
from mforce.training.draws import BLOCK, BatchDraws, Draws, RowDraws
from mforce.training.log import read_log
from mforce.training.noise import draw_noise
from mforce.training.plan import count_costs, plan
from mforce.training.processes import Processes, join
from mforce.training.recipe import Batch, sparse_masks
from mforce.training.train import Trainer, train
from tiny_training import config, write_base, write_latents, write_words

# One process saving alone is meant.
pytestmark = pytest.mark.filterwarnings("ignore:torch.distributed is disabled")

CUDA = pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"))


@pytest.fixture(scope="module")
def base(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    return write_base(folder, config("t2i", data, folder))


def same(source: EncodedSource, depth: bool, device: str) -> None:
    resident = ResidentSource(source, depth=depth, device=torch.device(device))
    assert (len(resident), resident.latent_shape) == (len(source), source.latent_shape)
    assert torch.equal(resident.null_text.cpu(), source.null_text)
    for step in range(12):
        read, kept = source.batch(step, slice(1, 6)), resident.batch(step, slice(1, 6))
        assert torch.equal(kept.rgb.cpu(), read.rgb)
        assert torch.equal(kept.text.cpu(), read.text)
        if depth:
            assert kept.depth is not None
            assert torch.equal(kept.depth.cpu(), read.depth)
        else:
            assert kept.depth is None


@pytest.mark.parametrize("device", ["cpu", CUDA])
@pytest.mark.parametrize("depth", [True, False])
def test_batches_are_those_that_are_read(tmp_path: Path, depth: bool, device: str) -> None:
    """A mixture with a set without depth, one in buckets and one of two shards."""
    write_latents(tmp_path / "rooms", count=9, seed=1)
    write_latents(tmp_path / "rooms", count=4, file="latents-1.safetensors", seed=5)
    write_latents(tmp_path / "photos", count=5, depth=False, seed=2)
    for shape in ((2, 2), (1, 2)):
        name = "latents-0.{}x{}.safetensors".format(*shape)
        write_latents(tmp_path / "streets", count=4, shape=shape, file=name, facts={"aspects": True}, seed=3)
    write_words(tmp_path)
    folders = [tmp_path / name for name in ("rooms", "photos", "streets")]
    same(EncodedSource(folders, tmp_path, batch_size=6, seed=4, weights=[3, 1, 2]), depth, device)


@pytest.mark.parametrize("depth", [True, False])
def test_the_plan_counts_what_a_device_holds(tmp_path: Path, depth: bool) -> None:
    """Captions that repeat in a shard, two shards of one shape, a set without depth, and one with features of text."""
    write_latents(tmp_path / "rooms", count=9, seed=1)
    write_latents(tmp_path / "rooms", count=4, file="latents-1.safetensors", seed=5)
    write_latents(tmp_path / "photos", count=5, depth=False, seed=2)
    write_words(tmp_path)
    folders = [tmp_path / "rooms", tmp_path / "photos"]
    source = EncodedSource(folders, tmp_path, batch_size=6, seed=4)
    held = resident_bytes(folders, depth=depth, features=2 * 8 * 4)
    assert held == bytes_of(ResidentSource(source, depth=depth, device=torch.device("cpu")))
    text = {"text": torch.zeros(3, 2, 8).bfloat16(), "text_row": torch.tensor([0, 1, 2, 1], dtype=torch.int32)}
    save_file({"text": torch.zeros(2, 8)}, tmp_path / NULL_TEXT_FILE)
    tensors = write_latents(tmp_path, count=4)
    captions = {"captions": '["a", "b", "c", "b"]'}
    save_file(tensors | text, tmp_path / "latents-0.safetensors", metadata=captions)
    source = EncodedSource([tmp_path], None, batch_size=2, seed=4)
    held = resident_bytes([tmp_path], depth=depth, features=0)
    assert held == bytes_of(ResidentSource(source, depth=depth, device=torch.device("cpu")))


def bytes_of(source: ResidentSource) -> int:
    tensors = [value for block in source._blocks.values() for value in vars(block).values()]
    return sum(value.nbytes for value in tensors if isinstance(value, torch.Tensor))


def test_every_gpu_of_a_plan_has_all_samples(data: Path, tmp_path: Path) -> None:
    given = config("mf", data, tmp_path, **{"data.on_device": "true"})
    costs = count_costs(given)
    assert costs.resident > 0
    one, two = plan(given, costs, 1), plan(given, costs, 2)
    assert one.samples == two.samples == costs.resident
    without = plan(config("mf", data, tmp_path), costs._replace(resident=0), 1)
    assert one.state - without.state == costs.resident
    assert count_costs(config("mf", data, tmp_path)).resident == 0


def drawn(batch_size: int, rows: slice, device: str, step: int = 7) -> tuple[torch.Tensor, ...]:
    draws = BatchDraws(3, step, batch_size, rows, torch.device(device))
    return draws.uniform(), draws.normal(4, 5), draws.uniform(2)


@pytest.mark.parametrize("device", ["cpu", CUDA])
@pytest.mark.parametrize(("batch_size", "processes", "micro_batch"), [(8, 2, 4), (768, 3, 100), (600, 2, 300)])
def test_processes_and_micro_batches_have_the_rows_of_one_draw(
    batch_size: int, processes: int, micro_batch: int, device: str
) -> None:
    whole = drawn(batch_size, slice(0, batch_size), device)
    assert all(len(value) == batch_size and value.device.type == device for value in whole)
    parts = []
    for rank in range(processes):
        own = Processes(rank, processes, torch.device(device)).share(batch_size)
        for start in range(own.start, own.stop, micro_batch):
            parts.append(drawn(batch_size, slice(start, min(start + micro_batch, own.stop)), device))
    for together, value in zip(zip(*parts, strict=True), whole, strict=True):
        assert torch.equal(torch.cat(together), value)
        if value.ndim > 1:  # no row comes twice; a single number of 24 bits may
            assert len(value.flatten(1).unique(dim=0)) == batch_size
    assert not torch.equal(drawn(batch_size, slice(0, batch_size), device, step=8)[0], whole[0])


@pytest.mark.parametrize("device", ["cpu", CUDA])
@pytest.mark.parametrize("count", [6, 256])
def test_a_batch_of_one_block_is_one_draw(count: int, device: str) -> None:
    """Batches of up to 256 rows keep the numbers of torch's generator for (seed, step), drawn at once."""
    state = np.random.SeedSequence((3, 7)).generate_state(1, np.uint64)
    generator = torch.Generator(device).manual_seed(int(state[0]) >> 1)
    uniform, normal, _ = drawn(count, slice(0, count), device)
    assert torch.equal(torch.rand(count, generator=generator, device=device), uniform)
    assert torch.equal(torch.randn(count, 4, 5, generator=generator, device=device), normal)


def test_a_process_draws_no_more_than_the_blocks_that_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    rows: list[int] = []
    draw = torch.randn

    def counted(*shape: int, **options: Any) -> torch.Tensor:
        rows.append(shape[0])
        return draw(*shape, **options)

    monkeypatch.setattr(torch, "randn", counted)
    for first in range(0, 2048, 32):
        BatchDraws(0, 0, 2048, slice(first, first + 32), torch.device("cpu")).normal(3)
    assert rows == [BLOCK] * 64


@pytest.mark.parametrize("device", ["cpu", CUDA])
def test_both_kinds_of_draws_have_the_same_distributions(device: str) -> None:
    count, clean = 3000, torch.ones(3000, 4, 4, device=device)
    batch = Batch(torch.zeros(count, 4, 8, device=device), clean, torch.zeros(count, 3, 5, device=device), (2, 2))
    kinds: list[Draws] = [BatchDraws(0, 0, count, slice(0, count), torch.device(device))]
    if device == "cpu":
        kinds.append(RowDraws(0, 0, range(count)))
    for draws in kinds:
        noise = draw_noise(batch, RecipeConfig(), draws)
        assert float((noise.t_rgb == 0).float().mean()) == pytest.approx(0.2, abs=0.03)
        assert float((noise.t_depth == 0).float().mean()) == pytest.approx(0.2, abs=0.03)
        assert float(torch.logit(noise.t_rgb[noise.t_rgb > 0]).mean()) == pytest.approx(1.1, abs=0.08)
        assert float(noise.rgb.std()) == pytest.approx(1, abs=0.02)
        masks = sparse_masks((8, 16), 0.5, draws)
        assert float(masks.flatten(1).all(1).float().mean()) == pytest.approx(0.5, abs=0.04)


@pytest.mark.parametrize("device", ["cpu", CUDA])
def test_a_run_learns_and_resumes_to_the_bit(data: Path, base: Path, tmp_path: Path, device: str) -> None:
    more = {"base": base, "data.on_device": "true", "device": device, "save_every": 4, "log_every": 4}
    whole = config("mf", data, tmp_path / "whole", **more)
    train(whole)
    losses = [entry["depth"] for entry in read_log(tmp_path / "whole")]
    assert len(losses) == 2
    assert losses[1] < losses[0]

    half = config("mf", data, tmp_path / "half", **more)
    first = Trainer(half, join(device))
    for _ in range(4):
        first.train_step()
    first.save()
    first.close()
    train(half)
    assert [entry["depth"] for entry in read_log(tmp_path / "half")][-1] == losses[-1]


def test_a_batch_in_parts_is_the_batch(data: Path, base: Path, tmp_path: Path) -> None:
    """Micro-batches have their rows of what is drawn for the batch."""
    feeds = [
        Trainer(
            config(
                "mf",
                data,
                tmp_path / str(size),
                base=base,
                **{"data.on_device": "true", "scale.micro_batch_size": size},
            ),
            join("cpu"),
        ).feed
        for size in (4, 2)
    ]
    (whole,), parts = list(feeds[0].parts(3)), list(feeds[1].parts(3))
    for group in range(2):
        for name, value in whole[group]._asdict().items():
            if isinstance(value, torch.Tensor):
                together = torch.cat([getattr(part[group], name) for part in parts])
                assert torch.equal(together, value), name
    for feed in feeds:
        feed.close()


class Stream:
    """Notes what is asked of a stream, in one list for all of them."""

    def __init__(self, name: str, calls: list[tuple]) -> None:
        self.name, self.calls, self.device = name, calls, torch.device("cuda")

    def wait_stream(self, other: "Stream") -> None:
        self.calls.append((self.name, "waits for", other.name))

    def __enter__(self) -> None:
        self.calls.append((self.name, "begins", threading.get_ident()))

    def __exit__(self, *_: object) -> None:
        self.calls.append((self.name, "ends", threading.get_ident()))


def test_a_batch_is_handed_over_before_a_step_uses_it(
    data: Path, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In this order: samples are there, a batch is made, the steps wait for it, its tensors are theirs."""
    calls: list[tuple] = []
    steps, side = Stream("steps", calls), Stream("side", calls)
    monkeypatch.setattr(torch.cuda, "Stream", lambda device: side)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: steps)
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: stream)
    monkeypatch.setattr(
        torch.Tensor, "record_stream", lambda tensor, stream: calls.append((stream.name, "uses", id(tensor)))
    )
    monkeypatch.setattr("mforce.training.feed.Beside", lambda device: Beside(torch.device("cuda")))
    feed = Trainer(config("mf", data, tmp_path, base=base, **{"data.on_device": "true"}), join("cpu")).feed
    step = feed.take()
    feed.close()  # when the batch after it has been made, too
    tensors = [value for part in step.parts for group in part for value in group if torch.is_tensor(value)]
    assert len(tensors) == 7
    reader = calls[1][2]
    assert reader != threading.get_ident()
    made = [("side", "begins", reader), ("side", "ends", reader)]
    handed_over = [("steps", "waits for", "side"), *(("steps", "uses", id(tensor)) for tensor in tensors)]
    assert calls == [("side", "waits for", "steps"), *made, *handed_over, *made]


def test_samples_that_do_not_fit_are_said_in_a_sentence(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> torch.Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 100 GiB.")

    source = EncodedSource([data], data, batch_size=4, seed=0)
    monkeypatch.setattr(torch, "empty", full)
    with pytest.raises(ValueError, match=r"^data.on_device: the 8 samples do not fit the memory of cpu: leave it out$"):
        ResidentSource(source, depth=True, device=torch.device("cpu"))


def test_streams_are_not_kept(data: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="on_device needs source = encoded"):
        config(
            "t2i",
            data,
            tmp_path,
            **{
                "data.source": "stream",
                "data.on_device": "true",
                "data.shards": '["x.tar"]',
                "data.autoencoder": data,
            },
        )
