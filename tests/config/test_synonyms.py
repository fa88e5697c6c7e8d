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
