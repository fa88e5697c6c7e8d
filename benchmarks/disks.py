"""What becomes of a sweep whose disk turns full or read-only after its first record: `disks.py full` prints a row.

Each runs in mounts of its own, where this user may mount.
"""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path

from victim import TINY, Row, describe_exit, new_sweep, statuses, wait_for


def tasks() -> list[Callable[[], Row | None]]:
    return [partial(row_in_namespace, kind) for kind in ("full", "readonly")]


def row_in_namespace(kind: str) -> Row | None:
    """In mounts of its own; none where this user may not mount."""
    command = [sys.executable, __file__, kind]
    for prefix in (["unshare", "--mount"], ["unshare", "--user", "--map-root-user", "--mount"]):
        done = subprocess.run([*prefix, *command], capture_output=True, text=True, check=False)
        if done.returncode == 0:
            return Row(**json.loads(done.stdout.splitlines()[-1]))
    print(f"no row for a {kind} disk: {done.stderr.strip().splitlines()[-1:]}", file=sys.stderr)
    return None


def row_of(kind: str) -> Row:
    """In a namespace of its own: a small disk which trouble befalls after the first record."""
    with new_sweep() as sweep:
        place = sweep.out / "outputs"
        place.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "none", str(place)], check=True)
        bench = sweep.start(["-m", *TINY, "strategy=single,ddp", "seed=0,1", f"out_dir={place}"])
        wait_for(lambda: len(sweep.records()) > 0)
        before, started = sweep.raw_records(), time.monotonic()
        begin, end = {"full": (_fill, _free), "readonly": (_forbid, _allow)}[kind]
        begin(place)
        code = bench.wait()
        seconds, left = time.monotonic() - started, sweep.left()
        end(place)
        observed = f"{describe_exit(code)}; {statuses(sweep)}; resumed: "
        sweep.resume()
        after = sweep.raw_records()
        lost = sum(after.get(slug) != text for slug, text in before.items())
        lost += sweep.num_planned() - sum(record["status"] == "ok" for record in sweep.records().values())
        row = Row(f"disk becomes {kind}", observed + statuses(sweep), seconds, left + sweep.left(), lost)
        subprocess.run(["umount", "--lazy", str(place)], check=False)
    return row


def _fill(place: Path) -> None:
    try:
        with open(place / "filler", "wb", buffering=0) as file:
            while True:
                file.write(b"\0" * 4096)
    except OSError:
        return


def _free(place: Path) -> None:
    (place / "filler").unlink()


def _forbid(place: Path) -> None:
    subprocess.run(["mount", "--bind", str(place), str(place)], check=True)
    subprocess.run(["mount", "-o", "remount,bind,ro", str(place)], check=True)


def _allow(place: Path) -> None:
    subprocess.run(["umount", str(place)], check=True)


if __name__ == "__main__":
    print(json.dumps(asdict(row_of(sys.argv[1]))))
