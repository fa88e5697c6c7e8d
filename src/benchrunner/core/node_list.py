"""The nodes of an allocation as Slurm writes them, `gpu[01-03,7],login`, and as names."""

import re
from collections.abc import Iterator, Mapping
from itertools import product

WORD = re.compile(r"(?:[^,\[\]]|\[[^\]]*\])+")
RANGES = re.compile(r"\[([^\]]*)\]")

HOST_VARIABLES = ("SLURMD_NODENAME", "SLURM_SUBMIT_HOST", "SLURM_JOB_NODELIST")
"""What Slurm tells a job about the names of hosts."""


def expand(listed: str) -> list[str]:
    """The names that a list stands for, in its order; what is no list stands for itself."""
    return [name for word in WORD.findall(listed) for name in _names(word)]


def nodes_of(environ: Mapping[str, str]) -> list[str]:
    """The nodes of the allocation that this process is in; empty outside of one."""
    return expand(environ.get("SLURM_JOB_NODELIST", ""))


def hosts_of(environ: Mapping[str, str]) -> list[str]:
    """Every host that an allocation names: its nodes, and where it was asked for."""
    return [name for variable in HOST_VARIABLES for name in expand(environ.get(variable, ""))]


def numbers(ranges: str) -> Iterator[str]:
    """`01-03,7` → 01, 02, 03, 7."""
    for part in ranges.split(","):
        first, _, last = part.partition("-")
        if first.isdecimal() and (last or first).isdecimal():
            yield from (str(number).zfill(len(first)) for number in range(int(first), int(last or first) + 1))
        else:
            yield part


def _names(word: str) -> Iterator[str]:
    parts = RANGES.split(word)  # every other one was in brackets
    yield from map("".join, product(*(numbers(part) if at % 2 else (part,) for at, part in enumerate(parts))))
