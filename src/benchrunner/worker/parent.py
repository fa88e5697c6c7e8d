"""Dying with the parent: what keeps a killed `bench` from leaving processes behind."""

import ctypes
import os
import resource
import signal
import sys

PR_SET_PDEATHSIG = 1
"""<linux/prctl.h>"""


def die_with_parent(variable: str) -> None:
    """Ask the kernel for SIGKILL when the parent ends, and leave at once if it has ended already.

    `variable` names the environment variable in which the parent left its process id. The signal is sent when the
    parent's *thread* that spawned this process ends, so only main threads may spawn.
    """
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) failed")
    expected = os.environ.get(variable)
    if expected is not None and os.getppid() != int(expected):
        print(f"the parent {expected} has gone; leaving", file=sys.stderr)
        os._exit(1)


AGENT_VARIABLE = "BENCH_AGENT_PID"


def stand_somewhere() -> None:
    """A process whose working directory has gone goes to the root: some libraries find their own files from there."""
    try:
        os.getcwd()
    except OSError:
        os.chdir("/")


def hear_signals() -> None:
    """No signal is blocked, and children can be waited for, whatever `bench` was started by: both are inherited."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def hear_of_cpu_limit() -> None:
    """Where CPU time is limited, SIGXCPU comes first, also to processes that this one starts.

    `ulimit -t` sets both limits to the same, at which the kernel kills without saying why.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_CPU)
    if soft == hard != resource.RLIM_INFINITY and hard > 1:
        resource.setrlimit(resource.RLIMIT_CPU, (hard - 1, hard))
