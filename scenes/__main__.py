"""Write a dataset of procedural scenes: `python -m mforce.scenes --count 4096 --out scenes`."""

from __future__ import annotations

import argparse

from .dataset import write_dataset


def main() -> None:
    parser = argparse.ArgumentParser(prog="mforce.scenes", description="Write RGB + depth + caption scenes.")
    parser.add_argument("--count", type=int, required=True, help="number of scenes")
    parser.add_argument("--out", required=True, help="folder of the shards; complete ones are kept")
    parser.add_argument("--seed", type=int, default=0, help="sequence of scenes (default 0)")
    parser.add_argument("--size", type=int, default=128, help="side of the image in pixels (default 128)")
    parser.add_argument("--shard-size", type=int, default=2048, help="scenes a shard (default 2048)")
    parser.add_argument(
        "--views", type=float, default=0.0, help="share of crops, wider lenses and moved cameras, 0 to 1"
    )
    parser.add_argument("--device", default="cpu", help="where to render: cpu (default), cuda, cuda:1...")
    parser.add_argument("--format", choices=("safetensors", "webdataset"), default="safetensors")
    arguments = parser.parse_args()
    try:
        paths = write_dataset(
            arguments.out,
            arguments.count,
            arguments.seed,
            arguments.size,
            shard_size=arguments.shard_size,
            format=arguments.format,
            views=arguments.views,
            device=arguments.device,
        )
    except (ValueError, RuntimeError, AssertionError, ModuleNotFoundError) as error:  # torch asserts that CUDA is there
        parser.error(str(error))
    print(f"{arguments.count} scenes in {len(paths)} shards in {arguments.out}")


if __name__ == "__main__":
    main()
