from benchrunner.cli.gate_files import add_to_job_summary
from benchrunner.report import job_summary
from benchrunner.report.content import make_tables
from samples import make_rows

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
    monkeypatch.setattr(job_summary, "MOST_BYTES", 1000)
    assert "### Measured" not in job_summary.job_summary(TABLES) and "7 cells" in job_summary.job_summary(TABLES)
