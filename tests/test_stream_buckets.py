"""Streams whose batches have pictures of one shape each, against a plain loop and against PIL."""

import io
import json
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import webdataset
from PIL import Image, ImageOps

from mforce.mforce_core.model.config import ConfigError
from mforce.mforce_core.picture.files import upright_size
from mforce.training.config_file import read_train_config
from mforce.training.data.buckets import bucket_canvases, first_full
from mforce.training.data.encode import EncodeSettings
from mforce.training.data.shards import find_shards
from mforce.training.data.stream import StreamSource
from mforce.training.data.windows import Place

NANO = Path(__file__).parent.parent / "models" / "nano"
SIDE, BATCH = 64, 4
CANVASES = bucket_canvases(SIDE, 16)

Size = tuple[int, int]

#: Of pictures, some far more frequent than others.
WIDE = [(60, 80), (50, 100), (60, 80), (72, 72), (66, 90), (60, 80), (90, 60)]
TALL = [(80, 60), (100, 40), (70, 70)]


def picture(number: int, size: Size) -> Image.Image:
    """Slow waves, so that the filter of a resampling hardly shows."""
    y, x = np.meshgrid(np.linspace(0, 1, size[0]), np.linspace(0, 1, size[1]), indexing="ij")
    waves = [
        0.5 + 0.5 * np.sin(3 * (number % 5 + 1) * (a * x + b * y) + number) for a, b in ((1, 0.2), (0.3, 1), (1, 1))
    ]
    return Image.fromarray((255 * np.stack(waves, -1)).round().astype(np.uint8))


def ramps(size: Size) -> np.ndarray:
    """Depth that tells its pixel: 10 + column + 1000 * row."""
    return (10 + np.arange(size[1]) + 1000 * np.arange(size[0])[:, None]).astype(np.float32)


def saved(image: Image.Image, form: str = "png", **more: object) -> bytes:
    file = io.BytesIO()
    image.save(file, form, **more)
    return file.getvalue()


def write_tars(
    folder: Path, sizes: list[Size], count: int, *, name: str, cut: tuple[Size, ...] = ()
) -> dict[str, Size]:
    """Tars of 9 pictures; those of the sizes ``cut`` end after their headers. Returns the sizes by key."""
    folder.mkdir(parents=True, exist_ok=True)
    written = {f"{name}{number:03}": sizes[number % len(sizes)] for number in range(count)}
    with webdataset.ShardWriter(str(folder / f"{name}-%03d.tar"), maxcount=9, verbose=0) as writer:
        for number, (key, size) in enumerate(written.items()):
            file, depth = saved(picture(number, size)), io.BytesIO()
            np.save(depth, ramps(size))
            writer.write(
                {"__key__": key, "png": file[:60] if size in cut else file, "depth.npy": depth.getvalue(), "txt": key}
            )
    return written


def opened(*parts: Path, aspects: bool = True, seed: int = 5, depth: bool = True) -> StreamSource:
    settings = EncodeSettings(
        str(NANO / "autoencoder.safetensors"), str(NANO), (SIDE, SIDE), aspects=aspects, depth=depth
    )
    shards = [find_shards([str(part)]) for part in parts]
    return StreamSource(shards, settings, batch_size=BATCH, seed=seed, weights=[3.0, 1.0][: len(parts)], window=7)


def keys(source: StreamSource, step: int) -> list[str]:
    source.batch(step, slice(0, 1))
    return [drawn.record.key for drawn in source._held]


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Size]]:
    folder = tmp_path_factory.mktemp("wide")
    return folder, write_tars(folder, WIDE, 40, name="wide")


@pytest.fixture(scope="module")
def tall(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Size]]:
    folder = tmp_path_factory.mktemp("tall")
    return folder, write_tars(folder, TALL, 11, name="tall")


def test_a_shard_is_read_once_for_all_windows_of_it_that_wait(
    wide: tuple[Path, dict[str, Size]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Windows of 2 in shards of 9: 40 windows in 5 shards, two of which have a window that begins in another."""
    source = StreamSource([find_shards([str(wide[0])])], opened(wide[0]).settings, batch_size=BATCH, seed=5, window=2)
    (windows,) = source._parts
    drawn = {one.place: one.record.key for one in islice(windows.draw(Place()), 40)}
    read, usual = [], windows._read
    monkeypatch.setattr(windows, "_read", lambda shard: read.append(shard.location) or usual(shard))
    found = windows.find(set(drawn))
    assert {place: one.record.key for place, one in found.items()} == drawn
    assert len(read) <= 2 * 5
    with pytest.raises(ValueError, match="1 of the pictures that waited"):
        windows.find({Place(0, 0, 1, 5)})


def kept(size: Size, canvas: Size) -> float:
    """Share of a picture that is on a canvas which it covers, scaled evenly."""
    scale = max(canvas[0] / size[0], canvas[1] / size[1])
    return canvas[0] * canvas[1] / (size[0] * size[1] * scale**2)


def in_a_plain_loop(drawn: list[str], sizes: dict[str, Size]) -> Iterator[tuple[Size, list[str]]]:
    """Canvas and keys of every batch: a list for each canvas, emptied when it is full."""
    lists: dict[Size, list[str]] = {canvas: [] for canvas in CANVASES}
    for key in drawn:
        canvas = max(CANVASES, key=lambda canvas: kept(sizes[key], canvas))
        lists[canvas].append(key)
        if len(lists[canvas]) == BATCH:
            yield canvas, lists[canvas]
            lists[canvas] = []


@pytest.mark.parametrize("mixture", [False, True])
def test_batches_are_those_of_a_plain_loop(wide: tuple, tall: tuple, mixture: bool) -> None:
    """Over the pictures in the order of a stream of one size, several epochs of each set: none is lost or doubled."""
    folders, sizes = ([wide[0], tall[0]], wide[1] | tall[1]) if mixture else ([wide[0]], wide[1])
    plain, source = opened(*folders, aspects=False), opened(*folders)
    drawn = [key for step in range(40) for key in keys(plain, step)]
    expected = list(in_a_plain_loop(drawn, sizes))
    for step, (canvas, wanted) in enumerate(expected[:30]):
        batch = source.batch(step, slice(1, 3))
        assert [one.record.key for one in source._held] == wanted
        assert tuple(16 * side for side in batch.rgb.shape[2:]) == canvas == tuple(batch.depth.shape[1:])
        assert len(source._waiting) <= len(CANVASES) * (BATCH - 1)
    assert len({canvas for canvas, _ in expected[:30]}) >= 4
    if mixture:
        used = Counter(one.part for one in source._waiting)
        used.update(key.startswith("tall") for _, batch in expected[:30] for key in batch)
        assert used[True] / used.total() == pytest.approx(0.25, abs=1 / used.total())


def test_no_picture_is_stretched(wide: tuple, tall: tuple) -> None:
    """Pictures are what PIL's own crop and resize makes of them, and a pixel of depth is as high as it is wide."""
    source, sizes = opened(wide[0], tall[0]), wide[1] | tall[1]
    source.autoencoder = SimpleNamespace(encode=lambda pixels: pixels)
    seen: set[Size] = set()
    for step in range(30):
        batch = source.batch(step, slice(0, BATCH))
        canvas = tuple(batch.rgb.shape[2:])
        seen.add(sizes[source._held[0].record.key])
        for drawn, pixels, depth in zip(source._held, batch.rgb, batch.depth, strict=True):
            size = sizes[drawn.record.key]
            whole = picture(int(drawn.record.key[4:]), size)
            fitted = np.asarray(ImageOps.fit(whole, canvas[::-1], Image.Resampling.LANCZOS))
            found = ((pixels + 1) * 127.5).permute(1, 2, 0).numpy()
            assert np.abs(found - fitted).mean() < 2
            row, column = np.divmod(depth.numpy() - 10, 1000)
            high, wide_by = np.ptp(row) / (canvas[0] - 1), np.ptp(column) / (canvas[1] - 1)
            assert high == pytest.approx(wide_by, rel=0.04)
            assert max(np.ptp(row) + 1 - size[0], np.ptp(column) + 1 - size[1]) == 0  # cut at one pair of edges
    assert len(seen) >= 6


def test_a_stopped_stream_goes_on_to_the_bit(wide: tuple, tall: tuple) -> None:
    """After any step; what waited is read again, some of it from an epoch before."""
    whole = opened(wide[0], tall[0])
    batches, states = [], []
    for step in range(24):
        batches.append((whole.batch(step, slice(0, BATCH)), keys(whole, step)))
        states.append(json.loads(json.dumps(whole.state_dict())))
    assert any(one.place.epoch < whole._places[one.part].epoch for one in whole._waiting)
    for step in range(0, 23, 3):
        resumed = opened(wide[0], tall[0])
        resumed.load_state_dict(states[step])
        for later in (step + 1, min(step + 5, 23)):
            found = resumed.batch(later, slice(0, BATCH))
            assert [one.record.key for one in resumed._held] == batches[later][1]
            assert all(torch.equal(a, b) for a, b in zip(found, batches[later][0], strict=True))
            assert resumed.state_dict() == states[later]
    # Back in time, as after a gradient that is not finite.
    assert keys(whole, 3) == batches[3][1]


def test_what_waits_must_still_be_there(tmp_path: Path) -> None:
    write_tars(tmp_path, WIDE, 27, name="x")
    source = opened(tmp_path)
    source.batch(4, slice(0, 1))
    state = source.state_dict()
    for tar in tmp_path.glob("*.tar"):
        tar.unlink()
    write_tars(tmp_path, WIDE, 2, name="x")
    with pytest.raises(ValueError, match="goes on only with those that it began with"):
        opened(tmp_path).load_state_dict(state)


def test_a_shape_whose_pictures_are_all_damaged_does_not_end_the_run(tmp_path: Path) -> None:
    sizes = write_tars(tmp_path, WIDE, 28, name="x", cut=((60, 80), (66, 90)))
    source = opened(tmp_path)
    batches = [keys(source, step) for step in range(12)]
    assert {sizes[key] for batch in batches for key in batch} == {(50, 100), (72, 72), (90, 60)}
    assert {key for _, key in source.broken} == {key for key, size in sizes.items() if size in ((60, 80), (66, 90))}
    resumed = opened(tmp_path)
    resumed.batch(5, slice(0, 1))
    state, resumed = resumed.state_dict(), opened(tmp_path)
    resumed.load_state_dict(state)
    resumed.batch(6, slice(2, 3))  # another rank's row
    assert [one.record.key for one in resumed._held] == batches[6]
    write_tars(tmp_path / "all", [(60, 80)], 6, name="y", cut=((60, 80),))
    with pytest.raises(ValueError, match="A whole batch cannot be used"):
        opened(tmp_path / "all").batch(0, slice(0, 1))


def test_a_picture_without_a_size_is_listed(tmp_path: Path) -> None:
    write_tars(tmp_path, WIDE, 8, name="x")
    with webdataset.TarWriter(str(tmp_path / "y.tar"), encoder=False) as writer:
        writer.write({"__key__": "y", "png": b"not a picture"})
        writer.write({"__key__": "z", "txt": b"no picture"})
    source = opened(tmp_path)
    assert not {"y", "z"} & {key for step in range(8) for key in keys(source, step)}
    assert {key: reason for (_, key), reason in source.broken.items()} == {
        "y": "png is not an image that can be read (UnidentifiedImageError)",
        "z": "it has no image, only txt",
    }
    for path in tmp_path.glob("x*.tar"):
        path.unlink()
    with pytest.raises(ValueError, match="hold no sample at all"):
        opened(tmp_path).batch(0, slice(0, 1))


@pytest.mark.parametrize("form", ["jpeg", "png", "webp", "tiff"])
@pytest.mark.parametrize("orientation", [1, 3, 5, 6, 7, 8])
def test_the_size_of_a_header_is_that_of_the_upright_picture(form: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[274] = orientation
    file = saved(picture(0, (30, 50)), form, exif=exif)
    assert upright_size(file) == ImageOps.exif_transpose(Image.open(io.BytesIO(file))).size[::-1]


def test_the_first_canvas_with_enough_is_next() -> None:
    assert first_full([(1, 2), (2, 1), (1, 2), (2, 1)], 2) == [0, 2]
    assert first_full([(1, 2), (2, 1), (2, 1), (1, 2)], 2) == [1, 2]
    assert first_full([(1, 2), (2, 1)], 2) == []


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["data.latents=x"], "buckets needs source = stream"),
        (["data.source=stream", "data.shards=['x']", f"data.autoencoder={NANO}", "data.size=[64, 48]"], "square size"),
    ],
)
def test_buckets_that_cannot_be_are_refused_by_their_key(tmp_path: Path, words: list[str], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        read_train_config(Path("_small-t2i"), [f"out={tmp_path}", "data.buckets=true", *words])


def test_a_size_off_the_grid_is_refused(wide: tuple) -> None:
    settings = EncodeSettings(str(NANO / "autoencoder.safetensors"), str(NANO), (60, 60), aspects=True)
    with pytest.raises(ValueError, match="60x60 is off the grid"):
        StreamSource([find_shards([str(wide[0])])], settings, batch_size=BATCH, seed=0)
