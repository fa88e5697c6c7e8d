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
