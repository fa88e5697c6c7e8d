"""Dry runs as processes: cells in, predictions out, several at once, each kept for the next plan."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from benchrunner import __version__
from benchrunner.core.cell import canonical_json, digest
from benchrunner.core.files import write_json
from benchrunner.core.plain_json import parse

MODULE = "benchrunner.worker.dry_run"
TIMEOUT_S = 300.0
"""For each question of a process: the largest take a minute alone, and longer beside others."""

FORM = 3
"""Of an answer: those kept in another form are asked for again."""

Answer = dict[str, Any]
"""What `worker/dry_run.py` says of a cell: peak, reserved, least, phase and terms, or `refused`."""


def dry_run(questions: Sequence[dict[str, Any]], torch: str | None, tell: Callable[[int, int], None]) -> list[Answer]:
    """The answer to each question, in order.

    Args:
        questions: cells as plain data; equal ones are asked once.
        torch: its version, since another one allocates otherwise.
        tell: called with how many of how many are answered.
    """
    keys = [digest(canonical_json([question, torch, __version__, FORM])) for question in questions]
    open_questions = {
        key: question for key, question in zip(keys, questions, strict=True) if not _cached(key).is_file()
    }
    workers = max(1, min(os.cpu_count() or 1, len(open_questions)))
    answers: dict[str, Answer] = {}
    with ThreadPoolExecutor(workers) as pool:
        shares = [list(open_questions.items())[place::workers] for place in range(workers)]
        for found in pool.map(_ask, [share for share in shares if share]):
            answers |= found
            tell(len(answers), len(open_questions))
    return [answers.get(key) or _read(key) for key in keys]


def cache_dir() -> Path:
    """Where answers are kept: `$XDG_CACHE_HOME/benchrunner/dry-runs`."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "benchrunner" / "dry-runs"


def _cached(key: str) -> Path:
    return cache_dir() / f"{key}.json"


def _read(key: str) -> Answer:
    try:
        found: Answer = parse(_cached(key).read_bytes())
    except (OSError, ValueError) as error:
        return {"refused": f"its kept answer cannot be read: {error}"}
    return found


def _text(output: str | bytes | None) -> str:
    """What a process had written when its time was up."""
    return output.decode(errors="replace") if isinstance(output, bytes) else output or ""


def _ask(share: Sequence[tuple[str, dict[str, Any]]]) -> dict[str, Answer]:
    """One process answers its share, a line each; what it does not come to is refused."""
    asked = "".join(f"{json.dumps(question)}\n" for _, question in share)
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    try:
        done = subprocess.run(
            [sys.executable, "-m", MODULE], input=asked, capture_output=True, encoding="utf-8", errors="replace",
            timeout=TIMEOUT_S * len(share), env=environment,
        )  # fmt: skip
        lines, problem = done.stdout.splitlines(), _last_line(done.stderr) or f"exit code {done.returncode}"
    except subprocess.TimeoutExpired as error:
        lines, problem = _text(error.stdout).splitlines(), f"no answer within {error.timeout:.0f} s"
    except OSError as error:
        lines, problem = [], str(error)
    answers = [json.loads(line) for line in lines if line.startswith("{")]
    refused = [{"refused": f"the dry run ended early: {problem}"}] * (len(share) - len(answers))
    for (key, _), answer in zip(share, answers, strict=False):
        _keep(key, answer)
    return dict(zip([key for key, _ in share], [*answers, *refused], strict=True))


def _keep(key: str, answer: Answer) -> None:
    """For the next plan; where it cannot be written, that one asks again."""
    try:
        cache_dir().mkdir(parents=True, exist_ok=True)
        write_json(_cached(key), answer)
    except OSError:
        pass


def _last_line(text: str) -> str:
    return next((line for line in reversed(text.splitlines()) if line.strip()), "")[:300]
