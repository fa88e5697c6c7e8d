"""What a planted fault does to its rank."""

import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from benchrunner.worker.context import Context

EXIT_CODE = 7
HANG_S = 86_400
JUMP_S = 86_400.0
IMPOSSIBLE_BYTES = 1 << 50
"""More than an address space holds."""
BEYOND = 1 << 30
"""An index far out, of no more bits than a kernel looks at."""
NUM_HANDLES = 32
"""Of cuBLAS, each with some MB of its own; more than a full device can hold."""
WORKSPACE_BYTES = 1 << 26
"""What torch allocates beside a handle, and then some."""

HOSTILE = (
    "planted | fault `code` <script>alert(1)</script>\n| a | b |\n</td></table><img src=x onerror=alert(1)>\x1b[31m"
)
"""Breaks out of a Markdown table, a line, a page and a terminal, where it is let."""

FLOOD = (b"x" * 127 + b"\n") * 512
FLOOD_BYTES = 1 << 30

FULL: Mapping[str, int] = {"free_bytes": 100 << 20, "total_bytes": 80 << 30, "allocated_bytes": 79 << 30}
"""The memory of the device that is pretended where there is none."""


def fire(kind: str, context: "Context") -> None:
    """Do what the fault `kind` says to this rank."""
    print(f"planted fault: {kind} at {time.time():.3f}", file=sys.stderr, flush=True)
    ACTS[kind](context)


def _exception(context: "Context") -> None:
    raise RuntimeError("planted fault: exception")


def _hostile_text(context: "Context") -> None:
    raise RuntimeError(HOSTILE)


# --- memory --------------------------------------------------------------------------------------------------------


def _oom(context: "Context") -> None:
    import torch

    if context.device.type != "cuda":
        _pretend_full_device()
        raise torch.OutOfMemoryError("planted fault: out of memory. Tried to allocate 1.00 TiB")
    _fill(context, (1 << 30,), raises=True)


def _oom_disguised(context: "Context") -> None:
    """A cuBLAS handle takes device memory that is not torch's: on a full device the next one cannot be made.

    Every thread has its own, made with its first product. What torch itself allocates for one is left free in its
    cache, so that it is cuBLAS that finds no memory: torch would give its cache back to the device first.
    """
    import torch

    if context.device.type != "cuda":
        _pretend_full_device()
        raise RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`")
    matrix, product = torch.ones(2, 256, 256, device=context.device)
    cached = torch.empty(NUM_HANDLES * WORKSPACE_BYTES, dtype=torch.uint8, device=context.device)
    held = _fill(context, (1 << 30, 1 << 26, 1 << 21), raises=False)
    del cached
    if failure := _failure_of_handles(matrix, product):
        raise failure
    raise RuntimeError(f"cuBLAS made {NUM_HANDLES} handles beside {len(held)} blocks on a full device")


def _failure_of_handles(matrix: Any, product: Any) -> BaseException | None:
    """Make handles in threads that stay, until one fails."""
    failures: list[BaseException] = []
    is_over = threading.Event()
    for _ in range(NUM_HANDLES):
        is_made = threading.Event()
        work = partial(_multiply, matrix, product, failures)
        threading.Thread(target=work, args=(is_made, is_over), daemon=True).start()
        is_made.wait()
        if failures:
            break
    is_over.set()
    return failures[0] if failures else None


def _multiply(
    matrix: Any, product: Any, failures: list[BaseException], is_made: threading.Event, is_over: threading.Event
) -> None:
    import torch

    try:
        torch.mm(matrix, matrix, out=product)
        torch.cuda.synchronize(matrix.device)
    except RuntimeError as error:
        failures.append(error)
    finally:
        is_made.set()
    is_over.wait()


def _fill(context: "Context", sizes_bytes: tuple[int, ...], *, raises: bool) -> list[Any]:
    """Take the device's memory in blocks of these sizes, one size after the other."""
    import torch

    blocks: list[Any] = []
    for size_bytes in sizes_bytes:
        while True:
            try:
                blocks.append(torch.empty(size_bytes, dtype=torch.uint8, device=context.device))
            except torch.OutOfMemoryError:
                if raises:
                    raise
                break
    return blocks


def _pretend_full_device() -> None:
    """Make torch's questions about device memory answerable where there is no device."""
    import torch

    stats = {"allocated_bytes.all.current": FULL["allocated_bytes"], "reserved_bytes.all.current": 79 << 30}
    answers: dict[str, Callable[..., Any]] = {
        "is_initialized": lambda: True,
        "mem_get_info": lambda device=None: (FULL["free_bytes"], FULL["total_bytes"]),
        "memory_stats": lambda device=None: stats | {"num_alloc_retries": 1, "num_ooms": 1},
    }
    for name, answer in answers.items():
        setattr(torch.cuda, name, answer)


def _oom_host(context: "Context") -> None:
    import torch

    torch.empty(IMPOSSIBLE_BYTES, dtype=torch.uint8)


# --- refusals and peers --------------------------------------------------------------------------------------------


def _unsupported(context: "Context") -> None:
    raise RuntimeError("\"addmm_impl_cpu_\" not implemented for 'Float8_e4m3fn'")


def _missing(context: "Context") -> None:
    raise ModuleNotFoundError("No module named 'transformer_engine'", name="transformer_engine")


def _peer_loss(context: "Context") -> None:
    raise RuntimeError("[gloo/transport/tcp/pair.cc:534] Connection closed by peer [127.0.0.1]:1")


def _broken_device(context: "Context") -> None:
    """A kernel's assertion: it is heard of where something next waits for the device, not here."""
    import torch

    if context.device.type != "cuda":
        raise RuntimeError("CUDA error: device-side assert triggered")
    values, beyond = torch.zeros(1, device=context.device), torch.full((1,), BEYOND, device=context.device)
    values.index_select(0, beyond)


# --- ends ----------------------------------------------------------------------------------------------------------


def _die(signum: int) -> Callable[["Context"], None]:
    def act(context: "Context") -> None:
        signal.signal(signum, signal.SIG_DFL) if signum != signal.SIGKILL else None
        os.kill(os.getpid(), signum)
        time.sleep(HANG_S)

    return act


def _exit(context: "Context") -> None:
    os._exit(EXIT_CODE)


def _leave(context: "Context") -> None:
    os._exit(0)


def _hang(context: "Context") -> None:
    while True:
        time.sleep(HANG_S)


def _garbage(context: "Context") -> None:
    os.write(1, b"\x00\xff\xfe\x1b[31m{not json \xc3\x28\n" * 64)
    context.path.write_bytes(b'{"rank": \xff\x00 truncated')
    os._exit(0)


def _ignore_sigterm(context: "Context") -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    _hang(context)


# --- what goes on --------------------------------------------------------------------------------------------------


def _nan(context: "Context") -> None:
    from torch.optim.optimizer import register_optimizer_step_post_hook

    register_optimizer_step_post_hook(_poison)


def _poison(optimizer: Any, *arguments: Any) -> None:
    """Make this rank's part of the first parameter NaN: only the loop's own look at its loss can tell."""
    import torch

    with torch.no_grad():
        weight = optimizer.param_groups[0]["params"][0]
        (weight.to_local() if hasattr(weight, "to_local") else weight).fill_(float("nan"))


def _disk_full(context: "Context") -> None:
    """Every write that would make a file longer fails, as on a full disk; Python ignores SIGXFSZ."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))


def _clock_jump(context: "Context") -> None:
    now = time.time
    vars(time)["time"] = lambda: now() + JUMP_S


def _grandchild(context: "Context") -> None:
    sleeper = [sys.executable, "-c", f"import time; time.sleep({HANG_S})"]
    child = subprocess.Popen(sleeper, start_new_session=True)
    print(f"grandchild {child.pid}", file=sys.stderr, flush=True)


def _flood(context: "Context") -> None:
    for number in range(FLOOD_BYTES // len(FLOOD)):
        os.write(1, b"%020d" % number + FLOOD[20:])


def _print_env(context: "Context") -> None:
    for name, value in os.environ.items():
        print(f"{name}={value}", flush=True)


ACTS: dict[str, Callable[["Context"], None]] = {
    "exception": _exception,
    "hostile_text": _hostile_text,
    "oom": _oom,
    "oom_disguised": _oom_disguised,
    "oom_host": _oom_host,
    "unsupported": _unsupported,
    "missing": _missing,
    "peer_loss": _peer_loss,
    "broken_device": _broken_device,
    "sigkill": _die(signal.SIGKILL),
    "sigsegv": _die(signal.SIGSEGV),
    "exit": _exit,
    "leave": _leave,
    "hang": _hang,
    "nan": _nan,
    "garbage": _garbage,
    "disk_full": _disk_full,
    "clock_jump": _clock_jump,
    "ignore_sigterm": _ignore_sigterm,
    "grandchild": _grandchild,
    "flood": _flood,
    "print_env": _print_env,
}
"""Fault → act; a test holds its keys equal to those of `benchrunner.core.faults.DEATHS`."""
