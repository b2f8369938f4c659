"""Encoded shards, the batches read from them, streams, and the commands; word-level and Qwen3 features."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import webdataset
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from mforce.cli.commands.data import app
from mforce.mforce_core import load_autoencoder, load_text_encoder
from mforce.mforce_core.encoders.qwen import LAYERS
from mforce.mforce_core.release import TEXT_TOKENS
from mforce.scenes import read_shards, write_dataset
from mforce.training.batches import EncodedBatch, Source
from mforce.training.data import encode
from mforce.training.data.encode import EncodeSettings, ShardEncoder, half_depth
from mforce.training.data.encoded import EncodedSource
from mforce.training.data.order import Order
from mforce.training.data.resident import ResidentSource
from mforce.training.data.shards import ShardError, TarShard, find_shards
from mforce.training.data.stream import StreamSource
from mforce.training.data.workers import map_items

NANO = Path(__file__).parent.parent / "models" / "nano"
VAE, WORDS = NANO / "autoencoder.safetensors", NANO / "text_encoder.safetensors"
SIZE = 32


@pytest.fixture(scope="module")
def scenes(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("scenes")
    write_dataset(folder, 10, seed=3, size=SIZE, shard_size=4, progress=False)
    return folder


@pytest.fixture(scope="module")
def tars(tmp_path_factory) -> Path:
    """The same scenes as tars, the sixth of them broken."""
    folder = tmp_path_factory.mktemp("tars")
    paths = write_dataset(folder, 10, seed=3, size=SIZE, shard_size=4, progress=False, format="webdataset")
    samples = [dict(sample) for sample in webdataset.WebDataset(str(paths[1]), shardshuffle=False)]
    samples[1]["png"] = b"not a picture"
    with webdataset.TarWriter(str(paths[1]), encoder=False) as writer:
        for sample in samples:
            writer.write({key: value for key, value in sample.items() if key == "__key__" or key[:2] != "__"})
    return folder


def settings(**values) -> EncodeSettings:
    return EncodeSettings(**{"vae": str(VAE), "text_encoder": str(WORDS), "canvas": (SIZE, SIZE), **values})


@pytest.fixture(scope="module")
def encoded(tars, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("encoded")
    encoder = ShardEncoder(settings(), out)
    assert [encoder(shard).rows for shard in find_shards([str(tars)])] == [4, 3, 2]
    return out


def test_shards_hold_what_the_encoders_give(scenes, encoded):
    vae, words = load_autoencoder(VAE), load_text_encoder(WORDS)
    for number, shard in enumerate(read_shards(scenes)):
        kept = [row for row in range(len(shard.rgb)) if (number, row) != (1, 1)]
        images, captions = shard.rgb[kept], [shard.captions[row] for row in kept]
        with safe_open(encoded / f"latents-scenes-{number:05d}.safetensors", framework="pt") as file:
            with torch.no_grad():
                assert torch.equal(file.get_tensor("rgb"), vae.encode(images.float() / 127.5 - 1).half())
            assert torch.equal(file.get_tensor("depth"), shard.depth[kept])
            assert file.get_tensor("depth_scale").tolist() == [1.0] * len(kept)
            assert torch.equal(file.get_tensor("token_ids").long(), words.tokenize(captions))
            metadata = {name: json.loads(text) for name, text in file.metadata().items()}
        assert metadata["captions"] == captions
        assert metadata["facts"]["canvas"] == [SIZE, SIZE]
        reasons = [reason for _, _, reason in metadata["broken"]]
        assert len(reasons) == (number == 1)
        assert all("not an image" in reason for reason in reasons)


def test_scenes_are_encoded_alike_whatever_their_shards(scenes, encoded, tmp_path):
    encode_one = ShardEncoder(settings(), tmp_path)
    for shard in find_shards([str(scenes)]):
        encode_one(shard)
    one, other = (
        load_file(tmp_path / "latents-00000.safetensors"),
        load_file(encoded / "latents-scenes-00000.safetensors"),
    )
    assert torch.equal(one["rgb"], other["rgb"])
    assert torch.equal(one["depth"], other["depth"])


def test_finished_shards_are_kept_and_interrupted_ones_redone(tars, encoded, tmp_path, monkeypatch):
    encoder = ShardEncoder(settings(), tmp_path)
    shards = find_shards([str(tars)])
    encoder(shards[0])
    before = (tmp_path / "latents-scenes-00000.safetensors").stat().st_mtime_ns
    monkeypatch.setattr(encode, "view_sample", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        encoder(shards[1])
    monkeypatch.undo()
    assert [path.name for path in tmp_path.iterdir()] == ["latents-scenes-00000.safetensors"]
    again = [ShardEncoder(settings(batch_size=2), tmp_path)(shard) for shard in shards]
    assert [(result.rows, len(result.broken)) for result in again] == [(4, 0), (3, 1), (2, 0)]
    assert (tmp_path / "latents-scenes-00000.safetensors").stat().st_mtime_ns == before
    for path in encoded.glob("*.safetensors"):
        ours, theirs = load_file(tmp_path / path.name), load_file(path)
        assert ours.keys() == theirs.keys()
        torch.testing.assert_close(ours, theirs)  # a batch of another size may round otherwise
    with pytest.raises(ValueError, match="made with another fit: name a new folder"):
        ShardEncoder(settings(fit="pad"), tmp_path)(shards[0])


def test_another_tar_of_the_same_name_is_not_taken_for_the_one_that_was_encoded(tars, tmp_path):
    folder, out = tmp_path / "tars", tmp_path / "out"
    shutil.copytree(tars, folder)
    ShardEncoder(settings(), out)(find_shards([str(folder)])[0])
    shutil.copy(folder / "scenes-00001.tar", folder / "scenes-00000.tar")
    with pytest.raises(ValueError, match="made with another samples: name a new folder"):
        ShardEncoder(settings(), out)(find_shards([str(folder)])[0])


def test_a_tar_that_is_gone_after_it_was_encoded_stays_encoded(tars, tmp_path):
    folder, out = tmp_path / "tars", tmp_path / "out"
    shutil.copytree(tars, folder)
    shard = find_shards([str(folder)])[0]
    made = ShardEncoder(settings(), out)(shard)
    Path(shard.location).unlink()
    assert ShardEncoder(settings(), out)(shard).rows == made.rows > 0


def test_a_shard_that_cannot_be_reached_is_tried_again(tars, tmp_path, monkeypatch):
    missing = TarShard(str(tars / "scenes-00007.tar"))
    result = ShardEncoder(settings(), tmp_path)(missing)
    assert result.rows == 0
    assert "does not exist" in result.error

    def fails(shard):
        yield from ()
        raise ShardError("the network is gone")

    monkeypatch.setattr(TarShard, "records", fails)
    assert ShardEncoder(settings(), tmp_path)(find_shards([str(tars)])[0]).error == "the network is gone"
    assert not list(tmp_path.iterdir())


def test_half_precision_keeps_depth_of_any_unit():
    generator = torch.Generator().manual_seed(0)
    depth = torch.rand(4, 8, 8, generator=generator) * 5 + 0.5
    depth[1] *= 1e5
    depth[2] *= 1e-6
    depth[3, 2:] = torch.nan
    half, scale = half_depth(depth)
    assert scale.tolist()[0::3] == [1.0, 1.0]
    assert torch.equal(half == 0, depth.isnan())
    back = half.float() * scale[:, None, None]
    torch.testing.assert_close(back, depth.nan_to_num(0.0), rtol=2**-11, atol=0)


def batch_indices(count: int, step: int, batch_size: int, seed: int) -> torch.Tensor:
    return torch.tensor([pick.sample for pick in Order([[count]], [1.0], batch_size, seed).picks(step)])


def test_the_order_is_the_one_of_the_shipped_model():
    """Indices recorded from the code that trained it, and every epoch a permutation."""
    assert batch_indices(10, 0, 4, 1).tolist() == [4, 1, 8, 6]
    assert batch_indices(10, 2, 4, 1).tolist() == [2, 0, 3, 1]  # across the end of an epoch
    epoch = torch.cat([batch_indices(12, step, 4, 7) for step in range(3, 6)])
    assert sorted(epoch.tolist()) == list(range(12))


def stored(folder: Path) -> dict[str, torch.Tensor]:
    files = [load_file(path) for path in sorted(folder.glob("latents-*.safetensors"))]
    return {name: torch.cat([file[name] for file in files]) for name in files[0]}


def test_batches_are_the_rows_that_the_order_names(encoded):
    source: Source = EncodedSource([encoded], NANO, batch_size=4, seed=1)
    words, rows = load_text_encoder(WORDS), stored(encoded)
    assert (len(source), source.latent_shape) == (9, (128, 2, 2))
    assert torch.equal(source.null_text, words.encode([""])[0])
    for step in (0, 2, 11):
        index = batch_indices(9, step, 4, 1)
        batch = source.batch(step, slice(0, 4))
        assert torch.equal(batch.rgb, rows["rgb"][index].float())
        assert torch.equal(batch.depth, rows["depth"][index].float())
        assert torch.equal(batch.text, words.table[rows["token_ids"][index].long()])
        parts = [source.batch(step, slice(first, first + 2)) for first in (0, 2)]
        assert all(
            torch.equal(torch.cat(halves), whole) for halves, whole in zip(zip(*parts, strict=True), batch, strict=True)
        )


def test_shards_of_earlier_versions_load(tmp_path):
    generator = torch.Generator().manual_seed(0)
    rgb, depth = (
        torch.randn(3, 128, 2, 2, generator=generator).half(),
        torch.rand(3, 32, 32, generator=generator).half(),
    )
    captions = ["a red cube", "", "a blue ball"]
    metadata = {"captions": json.dumps(captions)}
    save_file({"rgb": rgb, "depth": depth}, tmp_path / "latents-00000.safetensors", metadata=metadata)
    batch = EncodedSource([tmp_path], NANO, batch_size=3, seed=0).batch(0, slice(0, 3))
    index = batch_indices(3, 0, 3, 0)
    assert torch.equal(batch.rgb, rgb[index].float())
    assert torch.equal(batch.depth, depth[index].float())
    assert torch.equal(batch.text, load_text_encoder(WORDS).encode([captions[i] for i in index]))


class TinyQwen:
    """Stands for Qwen3: features that depend on the caption alone."""

    length, dim = 6, 5

    def encode(self, prompts):
        return torch.stack([torch.full((6, 5), float(len(prompt))) for prompt in prompts])


def test_features_of_qwen_are_stored_once_a_caption(tars, tmp_path, monkeypatch):
    monkeypatch.setattr(encode, "open_text_encoder", lambda *_: TinyQwen())
    encoder = ShardEncoder(settings(views=2), tmp_path)
    for shard in find_shards([str(tars)]):
        encoder(shard)
    file = load_file(tmp_path / "latents-scenes-00000.safetensors")
    with safe_open(tmp_path / "latents-scenes-00000.safetensors", framework="pt") as handle:
        captions = json.loads(handle.metadata()["captions"])
    assert file["rgb"].shape[0] == len(captions) == 8
    assert file["text"].shape == (len(set(captions)), 6, 5)
    assert file["text"].dtype == torch.bfloat16
    source = EncodedSource([tmp_path], None, batch_size=18, seed=0)
    batch = source.batch(0, slice(0, 18))
    everything = [
        caption
        for path in sorted(tmp_path.glob("latents-*"))
        for caption in json.loads(safe_open(path, framework="pt").metadata()["captions"])
    ]
    index = batch_indices(18, 0, 18, 0).tolist()
    assert batch.text[:, 0, 0].tolist() == [len(everything[i]) for i in index]
    assert source.null_text.shape == (6, 5)
    assert not source.null_text.any()


def test_the_size_of_qwen_features_is_the_one_in_the_docs():
    megabytes = TEXT_TOKENS * len(LAYERS) * 4096 * 2 / 1e6
    docs = (Path(__file__).parent.parent / "docs" / "data.md").read_text(encoding="utf-8")
    assert f"{megabytes:.1f} MB" in docs


def test_sources_refuse_what_does_not_go_together(encoded, tmp_path):
    with pytest.raises(ValueError, match="holds no encoded samples"):
        EncodedSource([tmp_path], NANO, batch_size=1, seed=0)
    with pytest.raises(ValueError, match="name the text encoder"):
        EncodedSource([encoded], None, batch_size=1, seed=0)
    other = tmp_path / "words.safetensors"
    tensors = load_file(WORDS)
    with safe_open(WORDS, framework="pt") as file:
        save_file({name: tensor + 1 for name, tensor in tensors.items()}, other, metadata=file.metadata())
    with pytest.raises(ValueError, match="encoded with another text encoder"):
        EncodedSource([encoded], other, batch_size=1, seed=0)
    for path in encoded.glob("*00000.safetensors"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    tensors = {"rgb": torch.zeros(1, 128, 4, 4), "depth": torch.zeros(1, 64, 64)}
    save_file(tensors, tmp_path / "latents-x.safetensors", metadata={"captions": '[""]'})
    with pytest.raises(ValueError, match="encode them at one size"):
        EncodedSource([tmp_path], NANO, batch_size=1, seed=0)


def same(one: EncodedBatch, other: EncodedBatch) -> bool:
    return all(torch.allclose(a, b, atol=1e-5) for a, b in zip(one, other, strict=True))


class TestStream:
    @staticmethod
    def open(tars, seed=5, **values) -> StreamSource:
        shards = find_shards([str(tars)])
        return StreamSource([shards], settings(**values), batch_size=5, seed=seed, window=3)

    def test_an_epoch_has_every_sample_and_the_next_another_order(self, tars, encoded):
        source = self.open(tars)
        assert len(source) == 10
        epochs = [[source.batch(step, slice(0, 5)) for step in steps] for steps in ((0, 1), (2, 3))]
        first, second = (torch.cat([batch.rgb for batch in epoch]) for epoch in epochs)
        assert not torch.equal(first, second)
        known = stored(encoded)["rgb"].float()
        distance = torch.cdist(first.flatten(1), known.flatten(1))
        # Ten places for nine usable samples: the broken one's place is taken by a neighbor.
        assert len(set(distance.argmin(1).tolist())) == 9
        assert distance.amin(1).max() < 0.05 * known[0].norm()
        assert [key for _, key in source.broken] == ["00000005"]

    def test_ranks_jumps_and_resuming_see_the_same_batches(self, tars):
        whole = self.open(tars)
        batches = [whole.batch(step, slice(0, 5)) for step in range(7)]
        rank = self.open(tars)
        for step in (0, 1, 6):
            parts = [rank.batch(step, slice(0, 2)), rank.batch(step, slice(2, 5))]
            joined = EncodedBatch(*(torch.cat(halves) for halves in zip(*parts, strict=True)))
            assert same(joined, batches[step])
        assert same(rank.batch(2, slice(0, 5)), batches[2])  # ends within a window
        resumed = self.open(tars)
        resumed.load_state_dict(json.loads(json.dumps(rank.state_dict())))
        for step in (3, 4, 6):
            assert same(resumed.batch(step, slice(0, 5)), batches[step])
        assert not same(self.open(tars, seed=6).batch(0, slice(0, 5)), batches[0])

    def test_a_mixture_shares_rows_by_weight_and_resumes(self, tars, tmp_path):
        """Each part comes as it would alone but for its order; every one is where it was after a stop."""
        write_dataset(tmp_path, 7, seed=8, size=SIZE, shard_size=3, progress=False, format="webdataset")
        parts = [find_shards([str(tars)]), find_shards([str(tmp_path)])]

        def opened(weights=(3.0, 1.0), seed=5) -> StreamSource:
            return StreamSource(parts, settings(), batch_size=5, seed=seed, weights=weights, window=4)

        def places(source: StreamSource) -> list[str]:
            return [drawn.location for drawn in source._held]

        whole = opened()
        assert len(whole) == 17
        batches, counts = [], []
        for step in range(12):
            batches.append(whole.batch(step, slice(0, 5)))
            counts.append(sum(str(tmp_path) in location for location in places(whole)))
        assert set(counts) <= {1, 2}  # 5 / 4 of 5
        assert sum(counts) == pytest.approx(12 * 5 / 4, abs=4)
        resumed = opened()
        resumed.batch(4, slice(0, 5))
        state = json.loads(json.dumps(resumed.state_dict()))
        assert len(state["place"]) == 1 + 2 * 4
        other = opened()
        other.load_state_dict(state)
        for step in (5, 6, 11):
            assert same(other.batch(step, slice(0, 5)), batches[step])
        # Rows of two ranks together are the batch.
        halves = [opened().batch(3, rows) for rows in (slice(0, 2), slice(2, 5))]
        assert same(EncodedBatch(*(torch.cat(pair) for pair in zip(*halves, strict=True))), batches[3])
        with pytest.raises(ValueError, match="The run read 1 data sets, and this stream has 2"):
            other.load_state_dict({"place": [4, 0, 0, 0, 0]})

    def test_text_to_image_needs_no_depth_and_damage_has_a_sentence(self, tars, tmp_path):
        assert self.open(tars, depth=False).batch(0, slice(0, 2)).depth is None
        with webdataset.TarWriter(str(tmp_path / "x.tar"), encoder=False) as writer:
            for number in range(5):
                writer.write({"__key__": str(number), "png": b"no"})
        with pytest.raises(ValueError, match="A whole batch cannot be used"):
            self.open(tmp_path).batch(0, slice(0, 5))


class TestCommands:
    @staticmethod
    def run(*arguments) -> tuple[int, str]:
        result = CliRunner().invoke(app, [str(argument) for argument in arguments])
        return result.exit_code, result.output + result.stderr

    def test_check(self, tars, tmp_path):
        code, text = self.run("check", tars, "--words", NANO, "--json", tmp_path / "report.json")
        assert code == 0, text
        report = json.loads((tmp_path / "report.json").read_text())
        assert (report["samples"], report["usable"], report["captions"]["unknown_words"]) == (10, 9, {})
        assert [entry["key"] for entry in report["broken"]] == ["00000005"]
        assert self.run("check", tars, "--strict")[0] == 1
        (tmp_path / "broken").mkdir()
        (tmp_path / "broken" / "x.jpg").write_bytes(b"no")
        assert self.run("check", tmp_path / "broken")[0] == 1
        code, text = self.run("check", tmp_path / "nowhere")
        assert code == 2
        assert "does not exist" in text

    def test_label_then_encode(self, tars, tmp_path):
        pictures = tmp_path / "pictures"
        pictures.mkdir()
        for sample in webdataset.WebDataset(str(tars / "scenes-00000.tar"), shardshuffle=False):
            (pictures / f"{sample['__key__']}.png").write_bytes(sample["png"])
            (pictures / f"{sample['__key__']}.txt").write_bytes(sample["txt"])
        options = ("--steps", 1, "--size", SIZE, "--device", "cpu")
        assert "4 pictures got depth, 0 had it" in self.run("label", pictures, *options, "--batch-size", 3)[1]
        labels = {path.name: path.read_bytes() for path in pictures.glob("*.depth.png")}
        assert len(labels) == 4
        next(iter(pictures.glob("*.depth.png"))).unlink()
        assert "1 pictures got depth, 3 had it" in self.run("label", pictures, *options)[1]
        assert labels.keys() == {path.name for path in pictures.glob("*.depth.png")}

        out = tmp_path / "encoded"
        arguments = ("encode", pictures, out, "--vae", VAE, "--text-encoder", NANO)
        code, text = self.run(*arguments, "--size", SIZE)
        assert code == 0, text
        assert json.loads((out / "encode.json").read_text())["rows"] == 4
        code, text = self.run(*arguments, "--size", 40)
        assert code == 2
        assert "off the grid" in text

    def test_label_of_a_tar_keeps_everything_else(self, tars, tmp_path):
        source = tmp_path / "in.tar"
        before = [dict(sample) for sample in webdataset.WebDataset(str(tars / "scenes-00002.tar"), shardshuffle=False)]
        with webdataset.TarWriter(str(source), encoder=False) as writer:
            for sample in before:
                writer.write({name: sample[name] for name in ("__key__", "png", "txt")})
        code, text = self.run("label", source, "--steps", 1, "--size", SIZE)
        assert (code, "with --out" in text) == (2, True)
        code, text = self.run("label", source, "--out", tmp_path / "out", "--steps", 1, "--size", SIZE)
        assert code == 0, text
        after = list(webdataset.WebDataset(str(tmp_path / "out" / "in.tar"), shardshuffle=False))
        assert [(s["__key__"], s["png"], s["txt"]) for s in after] == [
            (s["__key__"], s["png"], s["txt"]) for s in before
        ]
        found = [record.decode().depth for shard in find_shards([str(tmp_path / "out")]) for record in shard.records()]
        assert all(np.isfinite(depth).all() and depth.shape == (SIZE, SIZE) for depth in found)


@pytest.fixture(scope="module")
def several_captions(tmp_path_factory):
    """Four pictures with one, three, no and two captions of different lengths."""
    folder = tmp_path_factory.mktemp("several")
    lists = {"a": ["red"], "b": ["red cube", "a red cube", "the big red cube"], "c": [], "d": ["ball", "a blue ball"]}
    for number, (key, captions) in enumerate(lists.items()):
        Image.new("RGB", (SIZE, SIZE), (60 * number, 0, 0)).save(folder / f"{key}.png")
        np.save(folder / f"{key}.depth.npy", np.full((SIZE, SIZE), 1.0 + number, np.float32))
        (folder / f"{key}.json").write_text(json.dumps({"caption": captions}))
    return folder, lists


@pytest.mark.parametrize("stored_as", ["token_ids", "features", "captions"])
def test_epochs_take_turns_with_the_captions_of_an_encoded_sample(several_captions, stored_as, tmp_path, monkeypatch):
    folder, lists = several_captions
    own = settings()
    if stored_as == "captions":
        own = replace(own, text_encoder=None)
    if stored_as == "features":
        monkeypatch.setattr(encode, "open_text_encoder", lambda *_: TinyQwen())
    (shard,) = find_shards([str(folder)])
    assert ShardEncoder(own, tmp_path)(shard).rows == 4
    words = load_text_encoder(WORDS)
    texts = [text for captions in lists.values() for text in captions or [""]]
    encoder = TinyQwen() if stored_as == "features" else words
    known = {encoder.encode([text])[0].numpy().tobytes(): text for text in texts}
    source = EncodedSource([tmp_path], None if stored_as == "features" else NANO, batch_size=4, seed=5)
    resident = ResidentSource(source, depth=True, device=torch.device("cpu"))
    drawn = {key: [] for key in lists}
    for epoch in range(6):
        batch = source.batch(epoch, slice(0, 4))
        assert torch.equal(resident.batch(epoch, slice(0, 4)).text, batch.text)
        for depth, text in zip(batch.depth, batch.text, strict=True):
            drawn["abcd"[int(depth.mean()) - 1]].append(known[text.numpy().tobytes()])
    for key, captions in lists.items():
        count = max(1, len(captions))
        assert sorted(drawn[key][:count]) == sorted(captions or [""])
        assert drawn[key] == drawn[key][:count] * (6 // count)


@pytest.mark.usefixtures("ray_of_two_processes")
def test_ray_does_the_same_as_one_process(tars, encoded, tmp_path):
    shards = find_shards([str(tars)])
    results = list(map_items(ShardEncoder, (settings(), tmp_path), shards, ray_workers=2))
    assert sorted((result.name, result.rows) for result in results) == [
        ("scenes-00000", 4),
        ("scenes-00001", 3),
        ("scenes-00002", 2),
    ]
    for path in encoded.glob("*.safetensors"):
        torch.testing.assert_close(load_file(tmp_path / path.name), load_file(path))
