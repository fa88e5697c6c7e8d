"""What a planted fault does to its rank."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from benchrunner.worker.context import Context

EXIT_CODE = 7
HANG_S = 86_400


def fire(kind: str, context: "Context") -> None:
    """Do what the fault `kind` says to this rank."""
    print(f"planted fault: {kind}", file=sys.stderr, flush=True)
    ACTS[kind](context)


def _exception(context: "Context") -> None:
    raise RuntimeError("planted fault: exception")


def _oom(context: "Context") -> None:
    import torch

    if context.device.type != "cuda":
        raise torch.OutOfMemoryError("planted fault: out of memory. Tried to allocate 1.00 TiB")
    blocks = []
    while True:
        blocks.append(torch.empty(1 << 30, dtype=torch.uint8, device=context.device))


def _die(signum: int) -> Callable[["Context"], None]:
    def act(context: "Context") -> None:
        signal.signal(signum, signal.SIG_DFL) if signum != signal.SIGKILL else None
        os.kill(os.getpid(), signum)
        time.sleep(HANG_S)

    return act


def _exit(context: "Context") -> None:
    os._exit(EXIT_CODE)


def _hang(context: "Context") -> None:
    while True:
        time.sleep(HANG_S)


def _nan(context: "Context") -> None:
    raise FloatingPointError("planted fault: the loss is nan at step 0")


def _garbage(context: "Context") -> None:
    os.write(1, b"\x00\xff\xfe\x1b[31m{not json \xc3\x28\n" * 64)
    context.path.write_bytes(b'{"rank": \xff\x00 truncated')
    os._exit(0)


def _ignore_sigterm(context: "Context") -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    _hang(context)


def _grandchild(context: "Context") -> None:
    sleeper = [sys.executable, "-c", f"import time; time.sleep({HANG_S})"]
    child = subprocess.Popen(sleeper, start_new_session=True)
    print(f"grandchild {child.pid}", file=sys.stderr, flush=True)


def _print_env(context: "Context") -> None:
    for name, value in os.environ.items():
        print(f"{name}={value}", flush=True)


ACTS: dict[str, Callable[["Context"], None]] = {
    "exception": _exception,
    "oom": _oom,
    "sigkill": _die(signal.SIGKILL),
    "sigsegv": _die(signal.SIGSEGV),
    "exit": _exit,
    "hang": _hang,
    "nan": _nan,
    "garbage": _garbage,
    "ignore_sigterm": _ignore_sigterm,
    "grandchild": _grandchild,
    "print_env": _print_env,
}
"""Fault → act; a test holds its keys equal to those of `benchrunner.faults.DEATHS`."""
