"""The window: what a compiler does late belongs to the warm-up, once. Its own clock sees untrue step times."""

import time

import pytest

from benchrunner.worker.faults.lying_loops import compile_something
from benchrunner.worker.measure import window
from benchrunner.worker.measure.memory import MemoryMeter
from benchrunner.worker.measure.timer import HostTimer
from benchrunner.worker.measure.window import Steps, measure
from benchrunner.worker.validity.checks_data import fills
from cells import make_cell, make_context

WORDS = ["compile=inductor", "measure.warmup_steps=1", "measure.steps=3"]


def run(*words, compiles):
    """The steps that ran, and the window's result, when a compiler works in the steps that `compiles` says."""
    ran, drawn = [], []

    def step(index):
        ran.append(index)
        if compiles(index):
            compile_something()

    window = measure(make_context(make_cell(*WORDS, *words)), Steps(prepare=drawn.extend, run=step))
    assert drawn == ran
    assert len(window["step_times_s"]) == 3
    return ran, window["compile"]["num_window_recompiles"]


@pytest.mark.parametrize("dynamic", ["false", "true", "null"])
def test_a_window_with_a_late_compilation_is_measured_once_more(dynamic):
    assert run(f"compile.dynamic={dynamic}", compiles=lambda index: index == 2) == ([0, 1, 2, 3, 4, 5, 6], 0)


def test_compiling_again_and_again_is_counted():
    assert run("compile.dynamic=null", compiles=lambda index: True) == ([0, 1, 2, 3, 4, 5, 6], 3)


def test_a_quiet_window_is_measured_once():
    assert run(compiles=lambda index: index == 0) == ([0, 1, 2, 3], 0)


@pytest.mark.parametrize("told", [0.5, 1.0])
def test_the_window_has_a_clock_of_its_own(monkeypatch, told):
    real = HostTimer.step_times_s
    monkeypatch.setattr(HostTimer, "step_times_s", lambda timer: [told * step_s for step_s in real(timer)])
    words = ["measure.warmup_steps=1", "measure.steps=3"]
    context, steps = make_context(make_cell(*words)), Steps(prepare=list, run=lambda index: time.sleep(0.3))
    window = measure(context, steps)
    assert fills(sum(window["step_times_s"]), window["window_s"]) == (told == 1.0)


@pytest.mark.parametrize(
    ("words", "unseen"),
    [
        (("global_batch_size=4",), True),
        ((), False),
        (("workload=forward", "global_batch_size=4"), False),
    ],
)
def test_of_several_micro_batches_a_training_step_captures_all_graphs_at_once(monkeypatch, words, unseen):
    asked = []
    monkeypatch.setattr(window, "MemoryMeter", lambda device, **said: asked.append(said) or MemoryMeter(device))
    context = make_context(make_cell("micro_batch_size=2", *words))
    measure(context, Steps(prepare=lambda steps: None, run=lambda step: None), warmup_steps=0, num_steps=1)
    assert [said["unseen"] for said in asked] == [unseen]
