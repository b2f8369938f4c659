"""Run by ComfyUI's Python: Load MF Model on the folder that a training run exported, results as JSON.

Usage: trained_model_runs.py PACK_ROOT FOLDER, with the folders `named`, `copied` and `moved` of one run in it.
"""

import json
import sys
from pathlib import Path

from pack_loading import load_pack


def main(root: Path, folder: Path) -> None:
    load_pack(root)
    import folder_paths

    folder_paths.add_model_folder_path("diffusion_models", str(folder))
    results = {name: picture_of(name) for name in ("named", "copied")}
    results["same"] = results.pop("named") == results.pop("copied")
    results["moved"] = missing_parts("moved")
    results["knows_nanos_pictures"] = knows_nanos_pictures("named")
    print(json.dumps(results))


def picture_of(name: str) -> list[float]:
    """A joint sample with the CLIP and VAE that the node gives."""
    from pack_under_test.nodes.empty_latent import MFEmptyLatent
    from pack_under_test.nodes.load_model import MFLoadModel
    from pack_under_test.nodes.sampler import MFSampler

    model, clip, vae = MFLoadModel.execute(name).result
    texts = [clip.encode_from_tokens_scheduled(clip.tokenize(prompt)) for prompt in ("a red cube", "")]
    latent = MFEmptyLatent.execute(32, 32).result[0]
    settings = {"seed": 3, "mode": "joint", "steps": 2, "cfg": 4.0, "tilt": 5.0, "refine_depth": False}
    rgb, depth, _ = MFSampler.execute(
        model=model, positive=texts[0], negative=texts[1], latent=latent, **settings
    ).result
    pixels = vae.decode(rgb["samples"])
    assert pixels.isfinite().all()
    assert depth["samples"].isfinite().all()
    return [round(float(value), 6) for value in (*pixels.flatten()[:50], *depth["samples"].flatten()[:50])]


def knows_nanos_pictures(name: str) -> bool:
    """Whether the VAE holds the statistics that lie beside nano, whose autoencoder it is."""
    from pack_under_test.nodes.load_model import MFLoadModel

    return MFLoadModel.execute(name).result[2].first_stage_model.familiarity is not None


def missing_parts(name: str) -> list[str]:
    """What is said where the parts that the folder names are not there: the model itself loads."""
    from pack_under_test.nodes.load_model import MFLoadModel

    _, clip, vae = MFLoadModel.execute(name).result
    said = []
    for part, use in ((clip, "tokenize"), (vae, "decode")):
        try:
            getattr(part, use)("x")
        except ValueError as error:
            said.append(str(error))
    return said


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
