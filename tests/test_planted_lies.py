"""`benchmarks/planted_lies.py`, which tells every lie: what it tells, and what it tells no second time."""

import sys

from benchrunner.core.faults import LIES
from benchrunner.core.paths import CHECKOUT

sys.path.insert(0, str(CHECKOUT / "benchmarks"))

import planted_lies


def cells(*after):
    return list(planted_lies.told(cpu=False, only=set(), after=after))


def test_every_lie_is_told():
    assert {lie for lie, _, _ in cells()} == set(LIES)


def test_what_a_document_says_is_caught_is_not_told_again(tmp_path):
    document = tmp_path / "lies.md"
    document.write_text(
        "| lie | cell | verdict | what it says | checks that said no | caught |\n|---|---|---|---|---|---|\n"
        "| `no_reduce` | ddp, bf16 | `validity.x` | expected | observed | gradients_reduced | yes |\n"
        "| `no_reduce` | ddp, fp8 | `ok` |  |  | no |\n"
        "| `no_convert` | lora, single, nf4 | `skipped.budget` | no time |  | not run |\n"
    )
    left = cells(document)
    assert [cell for cell in cells() if cell not in left] == [cells()[0]]
    assert cells()[0][:1] == ("no_reduce",) and "strategy=ddp" in cells()[0][1]


def test_two_cells_that_are_told_apart_by_a_setting_alone_are_caught_one_by_one(tmp_path):
    """`half_lengths` has two that train; a document that caught one leaves the other."""
    document = tmp_path / "lies.md"
    document.write_text("| `half_lengths` | single, bf16 | `validity.data` | said | data | yes |\n")
    kinds = [[lie for lie, words, _ in told if "workload=train" in words] for told in (cells(), cells(document))]
    assert [told.count("half_lengths") for told in kinds] == [2, 1]
