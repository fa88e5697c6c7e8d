"""The pattern language of rules and exclusions: what fits, what does not, and how versions compare."""

import pytest

from benchrunner.core.patterns import as_text, read_pattern


@pytest.mark.parametrize(
    ("pattern", "fits", "fits_not"),
    [
        ("bf16", ["bf16"], ["bf16-mixed", None, 16]),
        ("bf16*", ["bf16", "bf16-mixed"], ["fp16"]),
        ("bf16|fp32", ["bf16", "fp32"], ["fp16"]),
        ("!bf16|fp32", ["fp16", None], ["bf16", "fp32"]),
        ("!null", ["x", 0, False], [None]),
        (None, [None], ["null", 0, ""]),
        (["a", "b*"], ["a", "bc"], ["c"]),
        (True, [True], [1, "true", None]),
        (0, [0, 0.0], [False, None, 1]),
        (">1", [2, 1.5], [1, None, True]),
        ("<=0.5", [0.25, 0.5], [0.75]),
        ("<8.9", ["8.0", "7.5"], ["8.9", "9.0", "10.0", None]),
        (">=2.11", ["2.11.0+cu130", "2.13"], ["2.9.1", "assumed", None]),
        ("<2.13", ["2.11.0"], ["2.13.0+cpu"]),
        ("<=2.11", ["2.11.0", "2.11.0+cu130", "2.11"], ["2.11.1", "2.11.0.1+cu130", "2.12"]),
        (">2.11", ["2.11.1", "2.12.0+cpu"], ["2.11.0+cu130", "2.11.0", "2.11"]),
        (">=2.11.0", ["2.11", "2.11+cpu"], ["2.10.9"]),
        ("<0.2.6", [0, 0.1, "0.2.5"], [1, 2.11, float("inf"), float("nan"), True, "0.2.6"]),
        (">=2.10", ["2.10.0a0+b2b3c4", "2.10.0.dev20260101", "2.10rc1"], ["2.9.9"]),
        ("<999", ["0"], ["assumed", "", "unknown+2.0", "CPU", None, True, ["2.0"]]),
    ],
)
def test_patterns(pattern, fits, fits_not):
    holds = read_pattern(pattern)
    assert [value for value in fits if not holds(value)] == []
    assert [value for value in fits_not if holds(value)] == []


@pytest.mark.parametrize(("value", "text"), [(None, "null"), (True, "true"), (False, "false"), (1.5, "1.5")])
def test_values_are_spelt_as_rules_spell_them(value, text):
    assert as_text(value) == text
