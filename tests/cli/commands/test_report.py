import pytest


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["report"], "report needs the directory"),
        (["report", "nowhere"], "nowhere: no such directory"),
        (["report", "."], "not a sweep"),
    ],
)
def test_what_is_no_sweep_is_refused(refused, words, message):
    refused(words, message)


def test_the_tables_of_the_latest_sweep_are_shown_again(bench, sweep):
    code, again, _, _ = bench("report", "outputs/latest")
    assert (code, "skipped.predicted_oom" in again) == (0, True)


def test_lost_tables_are_written_again(bench, sweep, tmp_path):
    table = tmp_path / sweep / "results.csv"
    before = table.read_text()
    table.unlink()
    assert bench("report", sweep)[0] == 0
    assert table.read_text() == before
