"""What must not reach a file of a sweep from the logs of its jobs: host names, secrets, escape sequences."""

import os
import re
import socket
from functools import cache

from benchrunner.core.node_list import hosts_of
from benchrunner.core.secrets import redact

ESCAPES = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|\x1b[@-Z\\-_]")
"""ANSI: control sequences, operating-system commands, single escapes."""

UNSEEN = r"\u061c\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\ud800-\udfff\U000e0000-\U000e007f"
"""Direction marks, characters without width, tags and halves of characters: what is read is not what is there."""

CONTROLS = re.compile(rf"[\x00-\x08\x0b-\x1f\x7f-\x9f{UNSEEN}]")


VOCABULARY = frozenset(
    """
    aborted aborting addmm address alloc allocate already any application are available bad bfloat
    blockingioerror broken bus busy can cannot capable client closed closing collective communicator compiled
    compiler completion connect connected connectfullmesh connection cpu cublas cuda cudnn cufft cusolver
    cusparse defaultcpuallocator detected determine device disk driver eaddrinuse ecc enabled endpoint engine
    enough errno error exceeded execution exited failed failure fallen file find float for found from got gpu
    half handle hardware has heartbeat image implemented initialize initialized input installation internal
    invalidcxxcompiler kernel left library listen local lost memory mismatch nccl ncclremoteerror
    ncclsystemerror ncclunhandledcudaerror net network new not nvlink nvml off operation out output peer pipe
    plan process python quota ready recv recvvalue refused remote rendezvous reset resource sending signal
    socket space stack stale start status std store such system temporarily the thread timed timeout torch
    transport tried triton tritonmissing unable unavailable uncorrectable unhandled use valid version wait
    waiting was watchdog with working yet
    """.split()  # noqa: SIM905 a column of 150 lines tells less
)
"""What verdicts are read from (`outcome/signatures.py`, `worker/ranks.py`): a host that is called so is hidden with its
domain alone. As a bare word it tells nobody where this is, and `Connection closed by <host>` tells no peer's loss."""


@cache
def _host_names() -> tuple[str, ...]:
    """This host, and those of the allocation that it is part of: without domains, in small letters."""
    names = {name.partition(".")[0].lower() for name in (socket.gethostname(), *hosts_of(os.environ))}
    return tuple(sorted(names - {"", "localhost"}))


@cache
def _host_pattern() -> re.Pattern[str] | None:
    """Finds these names, bare or with a domain; None where there are none. Asks no name server."""
    known = sorted(_host_names(), key=VOCABULARY.__contains__)
    names = "|".join(re.escape(name) + (r"(?=\.[A-Za-z])" if name in VOCABULARY else "") for name in known)
    before = r"(?:(?<![\w.-])|(?<=slurmstepd-))"
    return re.compile(rf"{before}(?:{names})(?:\.[A-Za-z0-9-]+)*(?![\w-])", re.IGNORECASE) if names else None


def forget_hosts() -> None:
    """The names are asked for again: they do not change while a process lives, but do in tests."""
    _host_names.cache_clear()
    _host_pattern.cache_clear()


def scrub_hosts(text: str) -> str:
    """`text` with every mention of this host, and of the others of its allocation, replaced by `<host>`."""
    pattern = _host_pattern()
    return pattern.sub("<host>", text) if pattern else text


def may_name_host(text: str) -> bool:
    """Whether `scrub_hosts` can find anything: quick, where its pattern takes minutes over a large log."""
    small = text.lower()
    return any(name in small for name in _host_names())


def plain(text: str) -> str:
    """`text` without escape sequences, control characters, secrets and host names; lines and tabs stay."""
    return scrub_hosts(redact(visible(text)))


def visible(text: str) -> str:
    """`text` without escape sequences, control characters and what is not seen; lines and tabs stay."""
    return CONTROLS.sub("", ESCAPES.sub("", text))


def first_line(text: str, limit: int = 240) -> str:
    """The first line that says something, cleaned and cut to `limit` characters."""
    lines = [" ".join(line.split()) for line in plain(text).splitlines() if line.strip()]
    if not lines:
        return ""
    first = f"{lines[0]} {lines[1]}" if lines[0].endswith(":") and len(lines) > 1 else lines[0]
    return first if len(first) <= limit else f"{first[: limit - 1]}…"


def single_line(text: str) -> str:
    """`text` in one line of printable characters: no breaks, controls, direction marks and unassigned code points."""
    seen = ESCAPES.sub(" ", text)
    return " ".join("".join(char if char.isprintable() else " " for char in seen).split())


MOST_INDENT = 40
"""Spaces at the beginning of a line that are kept."""


def indented_line(text: str) -> str:
    """`single_line` that keeps the spaces at the beginning: a traceback says by them what belongs to what."""
    said, indent = single_line(text), len(text) - len(text.lstrip(" "))
    return " " * min(MOST_INDENT, indent) + said if said else ""


NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""Characters that no XML 1.0 document may hold."""


def xml_text(text: str) -> str:
    """`text` with U+FFFD in the place of what XML cannot hold."""
    return NOT_XML.sub("\ufffd", text)


_MARKDOWN = re.compile(r"([\\`*\[\]|~$])|(?<!\w)(_)|(_)(?!\w)")
"""What Markdown would read as markup; an underscore inside a word is none."""

_HTML = str.maketrans({"<": "&lt;", ">": "&gt;", "&": "&amp;"})


def escape_markdown(text: str) -> str:
    """`text` as it stands, in any place of a Markdown table."""
    escaped = _MARKDOWN.sub(lambda hit: "\\" + hit[0], single_line(text).translate(_HTML))
    return re.sub(r"(https?)(://)", r"\1&#58;//", escaped)
