"""What other tools call things: every synonym leads to something that exists."""

import pytest

from benchrunner.config import keys, synonyms
from benchrunner.core.axes import GROUPS
from benchrunner.core.paths import config_dir


@pytest.mark.parametrize("group", synonyms.OPTIONS)
def test_every_synonym_means_an_option(group):
    options = {path.stem for path in (config_dir() / group).glob("*.yaml")}
    assert set(synonyms.OPTIONS[group].values()) <= options
    assert not options & set(synonyms.OPTIONS[group]), "an option of that name would never be suggested"
    assert all(synonyms.bare(word) == word for word in synonyms.OPTIONS[group])


def test_every_synonym_of_a_key_means_one():
    assert set(synonyms.KEYS.values()) <= {*keys.leaf_types(), *GROUPS}
    assert all(synonyms.bare(word) == word for word in synonyms.KEYS)


def test_at_most_five_alternatives_the_likeliest_first():
    options = [path.stem for path in (config_dir() / "model").glob("*.yaml")]
    hint = synonyms.option_hint("model", "llama2-7", options)
    assert hint.startswith(" (did you mean llama2-7b or llama2-70b?); allowed: llama2-7b, ")
    assert hint.count(",") == synonyms.MOST_SHOWN and "bench list model shows all" in hint


def test_another_case_is_the_same_word():
    assert synonyms.option_hint("strategy", "FSDP", ["ddp", "fsdp", "fsdp_stage2"]).startswith(" (did you mean fsdp?)")


@pytest.mark.parametrize(
    ("group", "word", "meant"),
    [
        ("strategy", "Zero-2", "strategy=fsdp_stage2"),
        ("workload", "QLoRA", "workload=lora precision=nf4"),
        ("strategy", "nothing", None),
        ("nothing", "zero2", None),
    ],
)
def test_what_another_tools_word_for_an_option_means(group, word, meant):
    assert synonyms.option_meant(group, word) == meant


def test_what_another_tools_key_and_flag_mean():
    assert (synonyms.key_meant("Batch_Size"), synonyms.key_meant("nothing")) == ("micro_batch_size", None)
    assert synonyms.flag_meant("--dry-run") == "bench plan lists the cells and runs nothing"
    assert synonyms.flag_meant("--nothing") is None
    assert synonyms.bare("BF16-true") == "bf16true"


@pytest.mark.parametrize(
    ("word", "allowed", "found"),
    [
        ("l", ["llama2-7b", "lora"], []),
        ("ll", ["llama2-70b", "llama2-7b"], ["llama2-7b", "llama2-70b"]),
        ("F.S.D.P", ["fsdp", "fsdp_stage2"], ["fsdp", "fsdp_stage2"]),
        ("fsdpx", ["fsdpa", "fsdpb", "fsdpc", "fsdpd"], ["fsdpd", "fsdpc", "fsdpb", "fsdpa"]),
    ],
)
def test_the_nearest_are_the_same_then_what_begins_so_then_what_is_alike(word, allowed, found):
    assert synonyms.nearest(word, allowed) == found


@pytest.mark.parametrize(
    ("group", "word", "options", "hint"),
    [
        ("model", "all", ["debug"], " (every one: -m 'model=glob(*)')"),
        ("model", "*", ["debug"], " (every one: -m 'model=glob(*)')"),
        ("precision", "int8", ["nf4", "bf16"], " (of weights in few bits there is nf4); allowed: bf16, nf4"),
        ("strategy", "zero2", ["ddp"], " (did you mean strategy=fsdp_stage2?); allowed: ddp"),
        ("strategy", "qqq", ["ddp"], "; allowed: ddp"),
        ("strategy", "qqq", [], "; allowed: (none)"),
        ("seed", "q", [*"edcba"], "; allowed: a, b, c, d, e"),
        ("seed", "q", [*"fedcba"], "; allowed: f, e, d, c, b, … (bench list seed shows all 6)"),
        ("precision", "int8", [*"fedcba"],
         " (of weights in few bits there is nf4); allowed: f, e, d, c, b, … (bench list precision shows all 6)"),
    ],
)  # fmt: skip
def test_the_whole_end_of_a_message(group, word, options, hint):
    assert synonyms.option_hint(group, word, options) == hint
