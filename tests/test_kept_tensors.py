"""What a model made for a study is read again, and nothing else is taken for it or written over."""

import pytest
import torch
from safetensors.torch import save_file

from mforce.evaluation.kept_tensors import KeptTensors


def test_tensors_come_back_for_what_they_were_made_of(tmp_path):
    file = tmp_path / "kept.safetensors"
    kept = KeptTensors(file, ["nano", 3], "what another seed gave")
    assert kept.read() is None
    made = torch.arange(6.0).reshape(2, 3).T
    kept.write({"a": made})
    assert torch.equal(KeptTensors(file, ["nano", 3], "").read()["a"], made)
    with pytest.raises(ValueError, match=r"holds what another seed gave: name another file, or remove this one"):
        KeptTensors(file, ["nano", 4], "what another seed gave").read()


def test_files_of_another_kind_are_named_and_not_to_be_removed(tmp_path):
    save_file({"weight": torch.ones(2)}, tmp_path / "model.safetensors")
    (tmp_path / "clip.mp4").write_bytes(b"\0\0\0\x20ftypisom" + bytes(100))
    for name, message in (("model.safetensors", "of another kind"), ("clip.mp4", "not a complete .safetensors file")):
        with pytest.raises(ValueError, match=message) as caught:
            KeptTensors(tmp_path / name, ["nano"], "what another seed gave").read()
        assert "remove" not in str(caught.value)
