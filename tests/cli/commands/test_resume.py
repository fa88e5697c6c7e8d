import re

import pytest


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["resume"], "resume needs the directory"),
        (["resume", ".", "."], "resume needs the directory of one sweep"),
        (["resume", "nowhere"], "nowhere: no such directory"),
        (["resume", "."], "not a sweep"),
    ],
)
def test_what_is_no_sweep_is_refused(refused, words, message):
    refused(words, message)


def test_a_sweep_with_nothing_left_ends_as_before(bench, sweep):
    assert bench("resume", sweep)[0] == 4
    assert bench("--only", "skipped", "resume", sweep, "--cells=*ddp*")[0] == 4


def test_a_selection_of_nothing_is_refused(bench, sweep):
    code, _, err, _ = bench("resume", sweep, "--cells", "nothing*")
    assert (code, "no cell's name or id matches 'nothing*'" in err) == (1, True)
    code, _, err, _ = bench("resume", sweep, "--only", "failed,tmeout")
    assert (code, "did you mean timeout?" in err) == (1, True)


def test_settings_of_the_run_may_be_others_this_time(bench, sweep):
    assert bench("resume", sweep, "timeout_s=60", "brake=null", "limits.build_s=90", "launcher.partition=long")[0] == 4


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("seq_len=64", "seq_len: is frozen in the plan; a resume may change timeout_s"),
        ("timeout_s=-1", "timeout_s: -1.0 is not allowed"),
        ("timeout_s=1,2", "timeout_s: 2 values make a matrix|timeout_s: does not tell cells apart"),
        ("timeouts=1", "timeouts: no such key"),
        ("precision=bf16", "precision: is frozen in the plan"),
    ],
)
def test_other_overrides_are_refused(bench, sweep, override, message):
    before = bench("report", sweep)[3]
    code, out, err, files = bench("resume", sweep, override)
    assert (code, out, files) == (1, "", before) and re.match(f"bench: ({message})", err)
