from benchrunner.cli.gate_files import add_to_job_summary
from benchrunner.report import job_summary
from benchrunner.report.content import make_tables
from samples import make_cell, make_row, make_rows

TABLES = make_tables("t", make_rows(), [], [], ["PARTIAL: 1 of 7 cells"])


def test_it_is_added_to_the_file_that_the_job_names(tmp_path, monkeypatch):
    target = tmp_path / "summary.md"
    target.write_text("before\n")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(target))
    add_to_job_summary(job_summary.job_summary(TABLES))
    text = target.read_text()
    assert text.startswith("before\n## t\n\n**PARTIAL: 1 of 7 cells**") and "### Not measured" in text


def test_elsewhere_nothing_is_written(monkeypatch):
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)
    add_to_job_summary(job_summary.job_summary(TABLES))


def test_a_summary_that_would_be_refused_has_no_tables(monkeypatch):
    whole = job_summary.job_summary(TABLES)
    monkeypatch.setattr(job_summary, "MOST_BYTES", len(whole.encode()))
    assert job_summary.job_summary(TABLES) == whole and "### Measured" in whole
    monkeypatch.setattr(job_summary, "MOST_BYTES", len(whole.encode()) - 1)
    assert job_summary.job_summary(TABLES) == whole.partition("\n### Measured")[0]
    assert "7 cells" in job_summary.job_summary(TABLES)


def test_cells_that_are_predictions_have_a_table_of_their_own():
    row = make_row(make_cell(), verdict="skipped", code="skipped.predict_only", reason="r")
    text = job_summary.job_summary(make_tables("t", [row], [], []))
    assert [line for line in text.splitlines() if line.startswith("###")] == ["### Predicted"]
