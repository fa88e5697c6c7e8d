"""JSON as plain data that can be worked with: what Python's own reader lets pass is refused here.

Without a library, so that a rank reads its job in no time.
"""

import json
import math
import re
from collections import Counter
from typing import Any, NoReturn

from benchrunner.core.errors import DamagedFile
from benchrunner.core.units import MIB

DEFAULT_LIMIT_BYTES = 64 * MIB

LONGEST_STRING_BYTES = MIB
"""Of JSON. The longest that is written is a traceback of 20,000 characters."""

BYTES_A_VALUE = 32
"""A file may hold one value for so many bytes of its limit: a wrong one costs hundreds of bytes to complain about."""

STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"', re.DOTALL)


def parse(text: bytes, *, limit_bytes: int = DEFAULT_LIMIT_BYTES) -> Any:
    """A JSON document as plain data in which every number is finite and fits 64 bits, and every key is there once.

    Raises:
        DamagedFile: it is none.
    """
    if not text.strip():
        raise DamagedFile("it is empty")
    if text.count(b",") > limit_bytes / BYTES_A_VALUE:
        raise DamagedFile(f"it holds more than {limit_bytes // BYTES_A_VALUE} values")
    made = _load(text)
    if len(text) > LONGEST_STRING_BYTES and any(map(_is_long, STRING.findall(text))):
        raise DamagedFile(f"it holds a text of more than {LONGEST_STRING_BYTES} bytes")
    return made


def _load(text: bytes) -> Any:
    try:
        return _DECODER.decode(text.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise DamagedFile(f"byte {error.start} is no UTF-8") from None
    except RecursionError:
        raise DamagedFile("it is nested too deeply") from None
    except json.JSONDecodeError as error:
        raise DamagedFile(f"no JSON: {error}") from None


def _is_long(found: bytes) -> bool:
    return len(found) > LONGEST_STRING_BYTES


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        key, count = Counter(key for key, _ in pairs).most_common(1)[0]
        raise DamagedFile(f"the key {key!r} is there {count} times")
    return made


def _finite(digits: str) -> float:
    number = float(digits)
    if math.isinf(number):
        raise DamagedFile(f"the number {digits[:30]} is too large")
    return number


def _whole(digits: str) -> int:
    number = int(digits) if len(digits) <= 20 else 2**63
    if not -(2**63) <= number < 2**63:
        raise DamagedFile(f"the number {digits[:30]} is too large")
    return number


def _no_number(word: str) -> NoReturn:
    raise DamagedFile(f"{word} is no number")


_DECODER = json.JSONDecoder(
    object_pairs_hook=_each_once, parse_float=_finite, parse_int=_whole, parse_constant=_no_number
)
