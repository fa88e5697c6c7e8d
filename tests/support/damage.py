"""What can be in the place of a sweep's file: each puts it there and says what the one line about it must hold."""

import errno
import os
import shutil
import socket
import tempfile
from pathlib import Path


def _text(text: str | bytes):
    def put(path: Path) -> None:
        path.write_bytes(text if isinstance(text, bytes) else text.encode())

    return put


def _within(value: str):
    """The document with one more key, which nobody reads."""

    def put(path: Path) -> None:
        whole = path.read_text().strip()
        path.write_text(f'{whole[:-1]}, "later": {value}}}')

    return put


def _doubled(path: Path) -> None:
    whole = path.read_text().strip()
    key = whole[1 : whole.index(":")].strip()
    path.write_text(f"{whole[:-1]}, {key}: 1}}")


def _half(path: Path) -> None:
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])


def _socket(path: Path) -> None:
    folder = tempfile.mkdtemp(prefix="s")  # the name of a socket has a hundred characters at most
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(f"{folder}/s")
        shutil.move(f"{folder}/s", path)
    os.rmdir(folder)


def _large(path: Path) -> None:
    with open(path, "wb") as file:
        file.truncate(2**30)


def _locked(path: Path) -> None:
    path.chmod(0)


DAMAGES = {
    "empty": (_text(""), "it is empty"),
    "blank": (_text(" \n"), "it is empty"),
    "half": (_half, "no JSON"),
    "no UTF-8": (_text(b'{"a": "\xff"}'), "byte 7 is no UTF-8"),
    "UTF-16": (_text('{"a": 1}'.encode("utf-16")), "byte 0 is no UTF-8"),
    "NaN": (_within('{"a": [NaN]}'), "NaN is no number"),
    "infinity": (_within('[{"a": -Infinity}]'), "-Infinity is no number"),
    "overflow": (_within("[1e999]"), "1e999 is too large"),
    "huge whole number": (_within("1" + "0" * 5000), "is too large"),
    "nested": (_within("[" * 1_000_000), "nested too deeply"),
    "nested objects": (_within('{"a":' * 1_000_000), "nested too deeply"),
    "doubled key": (_doubled, "is there 2 times"),
    "lone surrogate": (_within(r'"\ud800"'), "hex escape"),
    "long string": (_within('"' + "x" * 2_000_000 + '"'), "text of more than"),
    "50 MB string": (_within('"' + "x" * 50_000_000 + '"'), "48 MiB large|text of more than"),
    "1 GB": (_large, "1,024 MiB large"),
    "many values": (_within("[" + "1," * 20_000_000 + "1]"), "MiB large|more than"),
    "list": (_text("[]"), ""),
    "null": (_text("null"), ""),
    "no keys": (_text("{}"), ""),
    "directory": (Path.mkdir, "a directory is in its place"),
    "FIFO": (os.mkfifo, "a FIFO is in its place"),
    "device": (lambda path: path.symlink_to("/dev/zero"), "a device is in its place"),
    "socket": (_socket, "a socket is in its place"),
    "dangling link": (lambda path: path.symlink_to("nowhere"), "a link to nothing is in its place"),
    "link to itself": (lambda path: path.symlink_to(path.name), "it cannot be read"),
    "locked": (_locked, "it cannot be read"),
}
"""Name → what puts it in a valid file's place, and a pattern of what is said of it."""

NO_FILES = ("directory", "FIFO", "device", "socket", "dangling link", "link to itself")


def damage(path: Path, name: str) -> None:
    """Put the damage in the place of the file."""
    if name in NO_FILES:
        path.unlink()
    DAMAGES[name][0](path)


def respect_permissions(monkeypatch) -> None:
    """Files that nobody may read cannot be opened by root either."""
    opened = os.open

    def open_if_allowed(path, *rest, **more):
        if os.path.isfile(path) and not os.stat(path).st_mode & 0o777:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return opened(path, *rest, **more)

    monkeypatch.setattr(os, "open", open_if_allowed)
