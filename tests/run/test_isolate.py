from hypothesis import given
from hypothesis import strategies as st

from benchrunner.run.isolate import differing, isolate, overrides_of, settings_of_the_run, values_of
from samples import make_cell

WORKING = {name: (f"{name}=old",) for name in "abcdef"}
FAILING = {name: (f"{name}=new",) for name in "abcdef"}


def fails_with(*culprits, code="failed.exception"):
    """It fails so as long as all of these are new."""
    asked = []

    def ask(words):
        asked.append(words)
        return code if all(f"{name}=new" in words for name in culprits) else "ok"

    ask.asked = asked
    return ask


@given(culprits=st.sets(st.sampled_from("abcdef"), min_size=1))
def test_what_is_needed_is_what_it_takes(culprits):
    ask = fails_with(*culprits)
    found = isolate(FAILING, [WORKING], "failed.exception", ask)
    assert set(found.needed) == {f"{name}=new" for name in culprits} and len(ask.asked) == 6
    expected = {name: FAILING[name] if name in culprits else WORKING[name] for name in "abcdef"}
    assert found.overrides == overrides_of(expected)


def test_another_failure_is_another_matter():
    def ask(words):
        return "failed.exception" if "a=new" in words and "b=new" in words else "oom.device"

    found = isolate(FAILING, [WORKING], "failed.exception", ask)
    assert found.needed == ["a=new", "b=new"] and [trial.is_same for trial in found.trials].count(True) == 4


def test_a_cell_that_fails_whatever_its_values_are_needs_none():
    found = isolate(FAILING, [WORKING], "x", lambda words: "x")
    assert found.needed == [] and found.overrides == overrides_of(WORKING)


def test_where_the_usual_value_fails_otherwise_that_of_a_cell_that_works_is_tried():
    def ask(words):
        return "oom.device" if "a=old" in words else "x" if "b=new" in words else "ok"

    nearest = WORKING | {"a": ("a=other",)}
    found = isolate(FAILING, [WORKING, nearest], "x", ask)
    assert found.needed == ["b=new"] and found.overrides[:2] == ["a=other", "b=new"]


def test_each_value_is_asked_about_once_and_none_that_the_cell_has():
    ask = fails_with("a")
    nearest = WORKING | {"a": FAILING["a"], "b": ("b=other",)}
    found = isolate(FAILING, [WORKING, WORKING, nearest], "failed.exception", ask)
    assert found.needed == ["a=new"] and len(ask.asked) == 6


def test_what_one_of_two_cells_does_not_set_is_as_usual():
    ask = fails_with("a", "seed")
    found = isolate(FAILING | {"seed": ("seed=new",)}, [WORKING], "failed.exception", ask)
    assert found.needed == ["a=new", "seed=new"] and ["a=new", *overrides_of(WORKING)[1:]] in ask.asked

    def unless_set(words):
        return "ok" if "seed=old" in words else "x"

    found = isolate(FAILING, [WORKING | {"seed": ("seed=old",)}], "x", unless_set)
    assert found.needed == [] and found.overrides == overrides_of(WORKING)


def test_an_option_stays_together_with_what_was_changed_inside_of_it():
    cell = make_cell(compile="inductor", leaves={"compile.mode": "default", "seed": 3, "timeout_s": 9.0, "brake": 2})
    values = values_of(cell)
    assert values["compile"] == ("compile=inductor", "compile.mode=default") and values["seed"] == ("seed=3",)
    assert differing(values, values_of(make_cell())) == ["compile", "seed"]
    assert settings_of_the_run(cell) == ["timeout_s=9.0", "brake=2"]
    cell = make_cell(leaves={"limits.measure_s": 7.0, "launcher.jobs": 2, "repeats": 3, "model.num_layers": 3})
    assert settings_of_the_run(cell) == ["limits.measure_s=7.0"]
