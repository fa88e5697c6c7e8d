"""Tokens are chosen as the label says: a choice that is given known logits is counted."""

import pytest

from asking import SHORT, ask
from benchrunner.worker.validity.checks_choice import choice

GENERATE = ["workload=generate", *SHORT]
COOL, FEW, GREEDY = "generate.temperature=0.3", "generate.top_k=5", "generate.temperature=0"


@pytest.mark.parametrize(
    "words", [[], [COOL], [FEW], [COOL, "generate.top_k=100"], [GREEDY], ["generate.new_tokens=1"]]
)
def test_the_stated_choice_passes(words):
    found = ask(choice, None, *GENERATE, *words)
    assert found.ok is True, found


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("greedy", []),
        ("no_top_k", [FEW]),
        ("first_logits", []),
        *(
            pytest.param(*case, marks=pytest.mark.slow)
            for case in (("greedy", [COOL, FEW]), ("first_logits", [GREEDY]))
        ),
    ],
)
def test_another_choice_fails(kind, words):
    found = ask(choice, kind, *GENERATE, *words)
    assert found.ok is False, found


@pytest.mark.slow
def test_a_choice_within_the_graph_of_a_step_is_not_judged():
    words = ["compile=inductor", "generate.unit=token", "compile.scope=model"]
    assert ask(choice, None, *GENERATE, *words).ok is None
