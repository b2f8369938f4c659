"""Shards of WebDataset that are written whole: what others see meanwhile, and what a fault leaves."""

import tarfile
from pathlib import Path

import pytest

pytest.importorskip("webdataset")

from mforce.training.data.whole_tar import whole_tar


def test_a_tar_appears_when_it_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "scenes.tar"
    with whole_tar(path) as tar:
        tar.write({"__key__": "a", "txt": b"a red sphere"})
        assert not list(tmp_path.glob("*.tar"))  # what training takes for its shards
    assert list(tmp_path.iterdir()) == [path]
    with tarfile.open(path) as tar:
        assert tar.getnames() == ["a.txt"]


def test_the_same_samples_give_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, now in (("first", 1e9), ("second", 2e9)):
        monkeypatch.setattr("time.time", lambda now=now: now)
        with whole_tar(tmp_path / name) as tar:
            tar.write({"__key__": "a", "txt": b"a red sphere"})
    assert (tmp_path / "first").read_bytes() == (tmp_path / "second").read_bytes()


def test_an_interruption_leaves_nothing(tmp_path: Path) -> None:
    def stopped() -> None:
        with whole_tar(tmp_path / "scenes.tar") as tar:
            tar.write({"__key__": "a", "txt": b"a red sphere"})
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped()
    assert not list(tmp_path.iterdir())
