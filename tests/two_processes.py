"""Two processes that share a run, as torchrun starts them, but forked from one that has imported the training code.

Importing takes longer than what these tests train. That torchrun itself starts such runs is for test_training_runs.py
and test_training_tool.py.
"""

import multiprocessing
import os
import runpy
import sys
from collections.abc import Sequence
from multiprocessing.connection import wait
from pathlib import Path

import torch
from torch import distributed

COUNT = 2

# Where processes cannot be forked from a server, each imports for itself.
_method = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
_context = multiprocessing.get_context(_method)
if _method == "forkserver":
    _context.set_forkserver_preload(["mforce.training.train"])


def train_on_two(config: str, settings: Sequence[str], logs: Path) -> None:
    """What ``python -m mforce.training.train`` does, on two processes.

    Args:
        config: name of the configuration.
        settings: ``KEY=VALUE``, each for ``--set``.
        logs: folder for what the processes print.
    """
    _run_on_two(None, [config, *(part for setting in settings for part in ("--set", setting))], logs)


def run_on_two(script: Path, arguments: Sequence[str], logs: Path) -> None:
    """A script on two processes; ``logs`` is a folder for what they print."""
    _run_on_two(script, arguments, logs)


def _run_on_two(script: Path | None, arguments: Sequence[str], logs: Path) -> None:
    store = distributed.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    files = [logs / f"process-{rank}.log" for rank in range(COUNT)]
    processes = [
        _context.Process(target=_process, args=(rank, store.port, script, arguments, file))
        for rank, file in enumerate(files)
    ]
    for process in processes:
        process.start()
    running = processes
    while running and not any(process.exitcode for process in processes):  # where one has failed, another may wait
        wait([process.sentinel for process in running])
        running = [process for process in running if process.is_alive()]
    for process in running:
        process.kill()
    for process in processes:
        process.join()
    said = "\n".join(file.read_text(errors="replace")[-4000:] for file in files if file.exists())
    assert [process.exitcode for process in processes] == [0] * COUNT, said


def _process(rank: int, port: int, script: Path | None, arguments: Sequence[str], log: Path) -> None:
    with log.open("w") as file:
        for stream in (1, 2):
            os.dup2(file.fileno(), stream)
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(COUNT)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    os.environ |= {"TORCHELASTIC_USE_AGENT_STORE": "True", "TORCHELASTIC_RESTART_COUNT": "0"}  # the store is there
    torch.set_num_threads(1)
    sys.argv = [str(script), *arguments]
    if script is not None:
        runpy.run_path(str(script), run_name="__main__")
    else:
        from mforce.training.train import main

        main()
