"""One rank: forked by the agent, or `python -m benchrunner.worker <attempt directory>`, started by torchrun.

Whatever happens, the rank file says so, and a rank that failed leaves at once: one that lingers in a destructor keeps
the others waiting in a collective.
"""

import faulthandler
import importlib
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from benchrunner.core.cell import cell_from_dict
from benchrunner.core.errors import Unsupported
from benchrunner.core.faults import parse_fault
from benchrunner.core.files import write_json
from benchrunner.core.job_file import MARKER_VARIABLE, JobFile, read_own_job
from benchrunner.core.paths import AttemptPaths
from benchrunner.core.peer_loss import is_peer_loss
from benchrunner.core.rank_file import RankFile
from benchrunner.core.rank_result import ErrorKind, MemoryAtDeath, MemoryCap, RankError, RankResult
from benchrunner.worker.faults.plant import planted
from benchrunner.worker.imports import uncollected
from benchrunner.worker.parent import AGENT_VARIABLE, die_with_parent

if TYPE_CHECKING:
    from benchrunner.worker.context import Context


WORKLOADS: dict[str, str] = {
    "train": "benchrunner.worker.workloads.train",
    "parity": "benchrunner.worker.workloads.parity",
    "lora": "benchrunner.worker.workloads.train",
    "adapter": "benchrunner.worker.workloads.train",
    "adapter_v2": "benchrunner.worker.workloads.train",
    "forward": "benchrunner.worker.workloads.forward",
    "generate": "benchrunner.worker.workloads.generate",
}
"""Workload → the module whose `run(context)` measures it and returns the rank's result."""

OPTIONAL = ("transformer_engine", "bitsandbytes", "torchao", "thunder", "lightning")
"""Packages whose absence is a verdict and no failure."""

PEER_GRACE_S = 3.0
"""From the word of a rank that lost a peer to its end; the end of the peer ends it earlier."""

TRACEBACK_CHARACTERS = 20_000
MESSAGE_CHARACTERS = 4_000


def main(attempt_dir: str) -> None:
    """Run the rank and end the process.

    Exit code 0: it measured; 1: the rank file holds an error; EX_IOERR: the rank file cannot be written.
    """
    started_s = time.monotonic()
    rank = int(os.environ.get("RANK", "0"))
    paths = AttemptPaths(Path(attempt_dir))
    _own_streams(paths, rank)
    die_with_parent(AGENT_VARIABLE)
    marker = os.environ.get(MARKER_VARIABLE, "")
    status = RankFile(rank=rank, pid=os.getpid(), marker=marker, phase_started_at=time.time())
    code = os.EX_IOERR
    try:
        code = _run_to_its_end(paths, status, started_s)
        sys.stdout.flush()
        sys.stderr.flush()
    finally:  # even if not a word can be written any more
        os._exit(code)


def _run_to_its_end(paths: AttemptPaths, status: RankFile, started_s: float) -> int:
    """The rank's exit code; raises only where its file cannot be written."""
    write_json(paths.rank(status.rank), asdict(status))
    try:
        job = read_own_job(paths.cell)
        with uncollected():
            context = _make_context(job, paths, status, started_s)
        with planted(parse_fault(job["fault"]), context):
            _run(context)
    except BaseException as error:
        with _deaf_to_sigterm():
            _keep_error(paths, status, error)
        _let_peers_tell(status.error)
        return 1
    return 0


@contextmanager
def _deaf_to_sigterm() -> Iterator[None]:
    """A rank's last word is not cut short by the agent, who ends the others once one has failed; it comes after."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    yield
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})


def _let_peers_tell(error: RankError | None) -> None:
    """A rank that only lost a peer stays for a while: its end ends the others, who may be about to write the cause."""
    if error is not None and error["kind"] == "exception" and is_peer_loss(error["message"]):
        time.sleep(PEER_GRACE_S)


def _own_streams(paths: AttemptPaths, rank: int) -> None:
    """Files of its own for this rank, before torch can write a line: a log shared by ranks interleaves within lines."""
    for descriptor, path in ((1, paths.out(rank)), (2, paths.err(rank))):
        opened = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o644)
        os.dup2(opened, descriptor)
        os.close(opened)
    faulthandler.enable(all_threads=True)
    faulthandler.register(signal.SIGUSR1, all_threads=True)


def _run(context: "Context") -> None:
    context.phase("build")
    context.init_process_group()
    _limit_memory(context)
    with uncollected():
        measure = load_workload(context.cell.axes["workload"])
        refusals = _compiler_refusals(context)
    with refusals:
        context.status.result = measure(context)
    context.phase("teardown")
    context.destroy_process_group()
    context.finish()


def _limit_memory(context: "Context") -> None:
    from benchrunner.worker.measure.memory_limit import apply_limit

    apply_limit(context)


def _compiler_refusals(context: "Context") -> AbstractContextManager[object]:
    from benchrunner.worker.axes.compile import COMPILERS

    return COMPILERS[context.cell.axes["compile"]].refusals()


def _make_context(job: JobFile, paths: AttemptPaths, status: RankFile, started_s: float) -> "Context":
    from benchrunner.worker.context import Context

    return Context(
        cell=cell_from_dict(job["cell"]),
        hardware=job["hardware"],
        rank=status.rank,
        local_rank=int(os.environ.get("LOCAL_RANK", "0")),
        world_size=int(os.environ.get("WORLD_SIZE", "1")),
        path=paths.rank(status.rank),
        status=status,
        started_s=started_s,
    )


def load_workload(name: str) -> "Callable[[Context], RankResult]":
    """The function that measures the workload `name`.

    Raises:
        Unsupported: this version has no such workload.
    """
    if name not in WORKLOADS:
        raise Unsupported("runtime.workload", f"workload {name} is not implemented in this version")
    run: Callable[[Context], RankResult] = importlib.import_module(WORKLOADS[name]).run
    return run


def _keep_error(paths: AttemptPaths, status: RankFile, error: BaseException) -> None:
    """The rank file of a rank that failed: the last word it has.

    Raises:
        OSError: it cannot be written.
    """
    with suppress(OSError):
        traceback.print_exception(error)
    status.state = "error"
    status.error = describe_error(error)
    try:
        write_json(paths.rank(status.rank), asdict(status))
    except (ValueError, TypeError):  # a result that is no JSON
        traceback.print_exc()
        status.result = None
        write_json(paths.rank(status.rank), asdict(status))


def describe_error(error: BaseException) -> RankError:
    """What the rank file keeps of an exception: kind, code, type, message, traceback, when, and the memory at death."""
    kind, code = classify_error(error)
    text = "".join(traceback.format_exception(error))
    return {
        "kind": kind,
        "code": code,
        "type": f"{type(error).__module__}.{type(error).__qualname__}".removeprefix("builtins."),
        "message": str(error)[:MESSAGE_CHARACTERS],
        "traceback": text[-TRACEBACK_CHARACTERS:],
        "at": time.time(),
        "memory": _memory(),
    }


def classify_error(error: BaseException) -> tuple[ErrorKind, str | None]:
    """Kind and code of an exception: unsupported with its code, oom, nonfinite, or exception."""
    if isinstance(error, Unsupported):
        return "unsupported", error.code
    if isinstance(error, ImportError) and (package := _optional_package(error)):
        return "unsupported", f"missing.{package}"
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return "oom", None
    if isinstance(error, FloatingPointError):
        return "nonfinite", None
    return "exception", None


def _optional_package(error: ImportError) -> str | None:
    """The optional package that could not be imported: by name, or by the file in which the import failed."""
    name = (error.name or "").partition(".")[0]
    if name in OPTIONAL:
        return name
    files = [frame.filename for frame in traceback.extract_tb(error.__traceback__)]
    return next((package for package in OPTIONAL if any(f"/{package}/" in file for file in files)), None)


def _memory() -> MemoryAtDeath:
    """Bytes of device memory as this rank's death left them; None where torch or the device cannot tell."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_initialized():
        return {}
    try:
        free_bytes, total_bytes = torch.cuda.mem_get_info()
        stats = torch.cuda.memory_stats()
    except Exception:  # a device in error answers nothing
        return {}
    return {
        "free_bytes": free_bytes,
        "total_bytes": total_bytes,
        "allocated_bytes": stats.get("allocated_bytes.all.current"),
        "reserved_bytes": stats.get("reserved_bytes.all.current"),
        "num_alloc_retries": stats.get("num_alloc_retries"),
        "num_ooms": stats.get("num_ooms"),
        **_cap(),
    }


def _cap() -> MemoryAtDeath:
    """The allocator's cap, and what it was made of, where a smaller card was emulated."""
    memory_limit = sys.modules.get("benchrunner.worker.measure.memory_limit")
    cap: MemoryCap | None = memory_limit.CAP if memory_limit else None
    if cap is None:
        return {}
    return {"limit_bytes": cap["limit_bytes"], "cap_bytes": cap["cap_bytes"], "outside_bytes": cap["outside_bytes"]}


if __name__ == "__main__":
    main(sys.argv[1])
