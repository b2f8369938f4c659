"""FID and KID by the libraries that others use, and CLIP score: none is computed here, so that numbers compare."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from ...mforce_core.optional import need

#: Settings of FID: the library and how it resizes pictures to Inception's 299 x 299.
FID_SETTINGS: Mapping[str, str] = {
    "clean": "clean-fid, bicubic with antialiasing, in floats (Pillow)",
    "legacy_pytorch": "clean-fid, bilinear without antialiasing (PyTorch)",
    "legacy_tensorflow": "clean-fid, bilinear inside the network, as in TensorFlow",
    "torch-fidelity": "torch-fidelity, bilinear inside the network, as in TensorFlow",
}

#: Pictures of a subset of KID; both libraries take the smaller folder's number where it is less.
_KID_SUBSET = 1000


def distances(real: Path, made: Path, setting: str, device: str) -> dict[str, float]:
    """FID and KID between two folders of pictures.

    Args:
        real, made: folders of PNG files.
        setting: of `FID_SETTINGS`.
        device: of the Inception network.

    Raises:
        ValueError: an unknown setting.
        ModuleNotFoundError: the library is not installed.
    """
    if setting not in FID_SETTINGS:
        raise ValueError(f"FID has the settings {', '.join(FID_SETTINGS)}, not {setting}.")
    if setting == "torch-fidelity":
        count = min(len(list(folder.glob("*.png"))) for folder in (real, made))
        found = need("torch_fidelity", "FID", "torch-fidelity").calculate_metrics(
            input1=str(made), input2=str(real), fid=True, kid=True, kid_subset_size=min(count, _KID_SUBSET),
            cuda=device.startswith("cuda"), verbose=False, samples_find_deep=False, cache=False,
        )  # fmt: skip
        return {"fid": found["frechet_inception_distance"], "kid": found["kernel_inception_distance_mean"]}
    library = need("cleanfid.fid", "FID", "clean-fid")
    options = {"mode": setting, "device": torch.device(device), "num_workers": 0, "verbose": False}
    # It draws KID's subsets from NumPy's global generator.
    state = np.random.get_state()
    np.random.seed(0)
    try:
        return {
            "fid": float(library.compute_fid(str(made), str(real), use_dataparallel=False, **options)),
            "kid": float(library.compute_kid(str(made), str(real), use_dataparallel=False, **options)),
        }
    finally:
        np.random.set_state(state)


def clip_scores(pictures: Sequence[Path], prompts: Sequence[str], model: str, device: str) -> list[float]:
    """CLIP score of each picture with its prompt: 100 max(cos, 0) (Hessel et al., arXiv 2104.08718, without its 2.5).

    Args:
        pictures: files.
        prompts: one each.
        model: a CLIP of transformers, such as ``openai/clip-vit-base-patch16``.
        device: to run on.

    Raises:
        ModuleNotFoundError: transformers is not installed.
    """
    library = need("transformers", "CLIP score", "transformers")
    network = library.CLIPModel.from_pretrained(model, use_safetensors=True).to(device).eval()
    processor = library.CLIPProcessor.from_pretrained(model)
    scores = []
    with torch.inference_mode():
        for path, prompt in zip(pictures, prompts, strict=True):
            with Image.open(path) as image:
                inputs = processor(
                    text=[prompt], images=[image.convert("RGB")], return_tensors="pt", padding=True, truncation=True
                ).to(device)
            found = network(**inputs)
            cosine = torch.nn.functional.cosine_similarity(found.image_embeds, found.text_embeds)
            scores.append(100 * max(float(cosine), 0.0))
    return scores
