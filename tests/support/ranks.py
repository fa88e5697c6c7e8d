"""Real ranks of one process group on CPU, without torchrun: forked from a process that has torch loaded."""

import multiprocessing
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

PRELOADED = ["benchrunner.worker.engines.engine", "benchrunner.worker.steps.training_loop"]


def run_ranks(function: Callable[[], Any], folder: Path, world_size: int = 2) -> list[Any]:
    """What `function`, at the top of an importable module, returns on each rank; `torch.save` must take it."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
    ranks = [
        context.Process(target=_rank, args=(function, folder, rank, world_size, port)) for rank in range(world_size)
    ]
    for process in ranks:
        process.start()
    for process in ranks:
        process.join()
    assert [process.exitcode for process in ranks] == [0] * world_size, "the ranks' tracebacks are on stderr"
    return [torch.load(folder / f"{rank}.pt") for rank in range(world_size)]


def _rank(function: Callable[[], Any], folder: Path, rank: int, world_size: int, port: int) -> None:
    place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": world_size, "MASTER_PORT": port}
    os.environ |= {name: str(value) for name, value in place.items()} | {"MASTER_ADDR": "127.0.0.1"}
    torch.set_num_threads(1)
    torch.save(function(), folder / f"{rank}.pt")
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()
