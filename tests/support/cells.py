"""Cells for the worker's tests, composed as `bench` composes them."""

import os
import sys
import tempfile
from pathlib import Path

from benchrunner.config.hydra_app import expand
from benchrunner.core.cell import Cell
from benchrunner.machine.hardware import Hardware
from benchrunner.plan.planner import make_cells
from benchrunner.worker.context import Context

SUPPORT = Path(__file__).parent
"""Where the helpers and the jobs that torchrun starts are."""

SCRATCH = tempfile.TemporaryDirectory(prefix="benchrunner-tests-")
"""Gone when this process ends, or the session of tests."""

CPU = Hardware(name="cpu", device_type="cpu", device_name="CPU", num_devices=1, memory_bytes=2**34)


def make_matrix(*words: str) -> list[Cell]:
    """The cells of a matrix, sized for 2 CPU ranks where the strategy takes several."""
    return make_cells(expand(list(words), multirun=True).rows, CPU)


def make_cell(*words: str) -> Cell:
    """The one cell that the words mean."""
    (cell,) = make_matrix(*words)
    return cell


def make_context(cell: Cell) -> Context:
    """A context on CPU for this process: its rank and world come from torchrun's environment, if any."""
    alone = cell.sizes.world_size == 1
    rank = 0 if alone else int(os.environ.get("RANK", "0"))
    context = Context(
        cell=cell,
        hardware={"device_type": "cpu"},
        rank=rank,
        local_rank=rank,
        world_size=cell.sizes.world_size,
        path=Path(tempfile.mkdtemp(dir=SCRATCH.name)) / f"rank{rank}.json",
    )
    context.init_process_group()
    return context


def torchrun(script: Path, *arguments: str, processes: int = 2) -> list[str]:
    """The command that starts `script` on so many CPU ranks."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--local-addr=localhost"]
    return [*launcher, f"--log-dir={os.devnull}", f"--nproc-per-node={processes}", str(script), *arguments]
