"""What an attempt left behind: rank files, exit codes, the ends of the logs. Read once, judged by `judge.py`."""

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from benchrunner.core.errors import DamagedFile
from benchrunner.core.files import open_regular
from benchrunner.core.heartbeat import read_beat
from benchrunner.core.paths import AttemptPaths
from benchrunner.core.rank_file import RANK_FILE_BYTES, RankFile, read_exits, read_rank_file
from benchrunner.core.record import PHASES, Phase
from benchrunner.core.scrub import scrub_files
from benchrunner.core.text import plain

CHECKING: tuple[Phase, ...] = ("check", "teardown")
"""The phases after the measurement; a rank's result is in its file before it enters the first of them."""
TAIL_BYTES = 64 * 1024
TAIL_LINES = 40
STACK = re.compile(r"^(Current thread|Thread) 0x[0-9a-f]+.*:$")
"""The first line of a thread's stack as faulthandler writes it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stop:
    """Why the runner ended a job that had not ended by itself."""

    kind: str
    """timeout | interrupted | budget | stuck (a rank failed or left, and the others did not end)"""
    limit_s: float = 0.0
    phase: Phase | None = None
    """The phase whose limit it was; None: the limit of the whole cell."""
    gone: frozenset[int] = frozenset()
    """Ranks whose process had gone although the job went on: they ended with code 0."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """Everything that a verdict stands on."""

    world_size: int
    ranks: Mapping[int, RankFile] = field(default_factory=dict)
    """The rank files that can be read."""
    unreadable: Mapping[int, str] = field(default_factory=dict)
    """Rank → what is wrong with its file."""
    exits: Mapping[int, int] = field(default_factory=dict)
    """Exit codes of the ranks that failed (negative: the signal), in the order in which torchrun saw them."""
    told_to_stop: frozenset[int] = frozenset()
    """Ranks that torchrun ended because another had failed: their exit codes say nothing."""
    damaged: Sequence[str] = ()
    """What is wrong with files that are no rank's, a line each."""
    beats: Mapping[int, int] = field(default_factory=dict)
    """Rank → steps that it had issued."""
    tails: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """File name → its last lines, cleaned."""
    code: int | None = None
    """Exit code of the job as a whole; None when it is not known."""
    stop: Stop | None = None
    num_oom_kills: int = 0
    """How often the kernel killed for lack of memory while the job ran."""
    directory: str = ""
    """Name of the attempt's directory, for file references."""

    def tail(self, rank: int, stream: str = "err") -> Sequence[str]:
        """The last lines of a rank's stream."""
        return self.tails.get(f"rank{rank}.{stream}", ())

    def phase(self, rank: int) -> Phase:
        """Where the rank was; one without a file had not started."""
        return self.ranks[rank].phase if rank in self.ranks else PHASES[0]

    def is_complete(self) -> bool:
        """Whether every rank reached its end."""
        done = [status.state == "done" and status.result is not None for status in self.ranks.values()]
        return len(done) == self.world_size and all(done)

    def is_measured(self) -> bool:
        """Whether every rank's measurement is complete: all that was left to do were checks of it."""
        kept = [status.result is not None and status.phase in CHECKING for status in self.ranks.values()]
        return len(kept) == self.world_size and all(kept)


def gather(
    paths: AttemptPaths,
    world_size: int,
    *,
    marker: str = "",
    code: int | None = None,
    stop: Stop | None = None,
    num_oom_kills: int = 0,
) -> Evidence:
    """Read what the launch with this marker left; host names and secrets are taken out of the rank files first, and out
    of what is read of the logs."""
    scrub_files(path for path in paths.root.glob("rank*.json") if _is_readable(path))
    ranks, unreadable = read_ranks(paths, world_size)
    ranks, foreign = _own(ranks, marker)
    exits, damaged = _read_exits(paths)
    return Evidence(
        world_size=world_size,
        ranks=ranks,
        unreadable=unreadable,
        exits=exits,
        told_to_stop=_told_to_stop(paths, ranks),
        damaged=[*foreign, *damaged],
        beats={rank: read_beat(paths.beat(rank)) for rank in range(world_size)},
        tails=_read_tails(paths, world_size),
        code=code,
        stop=stop,
        num_oom_kills=num_oom_kills,
        directory=paths.root.name,
    )


def _is_readable(path: Path) -> bool:
    with suppress(OSError):
        return path.stat().st_size <= RANK_FILE_BYTES
    return False


def read_ranks(paths: AttemptPaths, world_size: int) -> tuple[dict[int, RankFile], dict[int, str]]:
    """The rank files that are there, and what is wrong with those that cannot be read."""
    ranks: dict[int, RankFile] = {}
    unreadable: dict[int, str] = {}
    for rank in range(world_size):
        try:
            ranks[rank] = read_rank_file(paths.rank(rank))
        except FileNotFoundError:
            continue
        except DamagedFile as error:
            unreadable[rank] = str(error)
    return ranks, unreadable


def _own(ranks: Mapping[int, RankFile], marker: str) -> tuple[dict[int, RankFile], list[str]]:
    """The files of this launch, and a line on each that is of another: no measurement is made of those."""
    own = {rank: status for rank, status in ranks.items() if status.marker == marker}
    return own, [f"rank{rank}.json is of another launch" for rank in ranks if rank not in own]


def _read_exits(paths: AttemptPaths) -> tuple[dict[int, int], list[str]]:
    """The exit codes of all nodes, and what is wrong with files that should hold some."""
    exits: dict[int, int] = {}
    damaged: list[str] = []
    for path in sorted(paths.root.glob("exits[0-9]*.json")):
        try:
            exits |= read_exits(path)
        except FileNotFoundError:
            continue
        except DamagedFile as error:
            damaged.append(f"{path.name} is damaged: {error}")
    return exits, damaged


def _told_to_stop(paths: AttemptPaths, ranks: Mapping[int, RankFile]) -> frozenset[int]:
    """From torchrun's own log lines, by process id."""
    pids = {int(pid) for pid in re.findall(r"Sending process (\d+) closing signal", "\n".join(_tail(paths.agent_log)))}
    return frozenset(rank for rank, status in ranks.items() if status.pid in pids)


def _read_tails(paths: AttemptPaths, world_size: int) -> dict[str, list[str]]:
    files = [paths.out(rank) for rank in range(world_size)] + [paths.err(rank) for rank in range(world_size)]
    tails = {path.name: _tail(path) for path in (*files, paths.agent_log)}
    return {name: lines for name, lines in tails.items() if lines}


def _tail(path: Path) -> list[str]:
    """The last lines of a log that say something, cleaned; a stack dump at its end is kept whole."""
    try:
        with open_regular(path) as file:
            file.seek(0, 2)
            file.seek(max(0, file.tell() - TAIL_BYTES))
            text = file.read(TAIL_BYTES).decode("utf-8", errors="replace")
    except (OSError, DamagedFile):
        return []
    lines = [line.rstrip() for line in plain(text).splitlines() if line.strip()]
    dump = next((index for index, line in enumerate(lines) if STACK.match(line)), len(lines))
    return lines[min(dump, max(0, len(lines) - TAIL_LINES)) :][: 4 * TAIL_LINES]


def stack(lines: Sequence[str]) -> list[str]:
    """The main thread's Python frames in a faulthandler dump, innermost first; empty when there is no dump.

    Faulthandler writes the main thread last.
    """
    starts = [index for index, line in enumerate(lines) if STACK.match(line)]
    frames: list[str] = []
    for line in lines[starts[-1] + 1 :] if starts else []:
        if not line.lstrip().startswith("File "):
            break
        frames.append(line.strip())
    return frames
