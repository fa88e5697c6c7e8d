import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchrunner.core import plain_json
from benchrunner.core.errors import DamagedFile
from benchrunner.core.plain_json import parse

LEAVES = st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False)
DOCUMENTS = st.recursive(
    LEAVES | st.text(st.characters(codec="utf-8")), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)
)


@given(DOCUMENTS)
def test_what_is_sound_is_read_as_it_was_written(document):
    assert parse(json.dumps(document, ensure_ascii=False).encode("utf-8", "surrogatepass")) == document


@pytest.mark.parametrize("number", ["NaN", "-Infinity", "1e999", "-1e999", str(2**63), str(-(2**63) - 1), "9" * 5000])
def test_numbers_that_cannot_be_worked_with_are_refused_wherever_they_are(number):
    with pytest.raises(DamagedFile, match=r"is too large|is no number"):
        parse(f'{{"a": [{{"b": {number}}}]}}'.encode())


def test_the_largest_numbers_are_read():
    assert parse(b"[9223372036854775807, -9223372036854775808, 1.7e308]") == [2**63 - 1, -(2**63), 1.7e308]


def test_a_key_that_is_there_twice_is_named():
    with pytest.raises(DamagedFile, match="the key 'b' is there 2 times"):
        parse(b'[{"a": 1, "b": 2, "b": 2}]')


def test_a_text_may_be_long_but_not_endless(monkeypatch):
    monkeypatch.setattr(plain_json, "LONGEST_STRING_BYTES", 100)
    assert parse(json.dumps(["x" * 90, "y" * 90]).encode())
    with pytest.raises(DamagedFile, match="text of more than 100 bytes"):
        parse(json.dumps(["x" * 110]).encode())


def test_a_file_may_hold_as_many_values_as_its_limit_means():
    text = json.dumps(list(range(1000))).encode()
    assert len(parse(text, limit_bytes=32 * 1000)) == 1000
    with pytest.raises(DamagedFile, match="more than 900 values"):
        parse(text, limit_bytes=32 * 900)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (b" ", "it is empty"),
        (b'"\xff"', "byte 1 is no UTF-8"),
        (b"[" * 100_000, "it is nested too deeply"),
        (b"[1" + b"0" * 40 + b"]", "the number 1" + "0" * 29 + " is too large"),
        (b'{"a": 1, "b": 2, "b": 3, "b": 4, "a": 5}', "the key 'b' is there 3 times"),
    ],
)
def test_what_is_wrong_is_one_sentence(text, why):
    with pytest.raises(DamagedFile) as caught:
        parse(text)
    assert str(caught.value) == why
