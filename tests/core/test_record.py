"""Records on disk: round trip, atomic writes, and the published schema."""

import json
from dataclasses import replace

import jsonschema
import pytest

from benchrunner.core.errors import DamagedFile
from benchrunner.core.files import decode, write_json, write_text
from benchrunner.core.paths import CHECKOUT
from benchrunner.core.record import SCHEMA_VERSION, Metrics, Record, record_to_dict
from benchrunner.store import record_schema
from samples import make_cell, make_record

CELL = make_cell(strategy="ddp", leaves={"seq_len": 64})
SCHEMA = record_schema.record_schema()


RANK = {"rank": 0, "state": "done", "phase": "teardown", "phases_s": {"start": 1.0}, "error": None}


def read(data):
    return decode(json.dumps(data).encode(), Record, version=SCHEMA_VERSION)


def test_a_record_survives_json():
    record = make_record(CELL, flags=["unstable"], ranks=[{**RANK, "step_times_s": [0.1]}])
    assert read(record_to_dict(record)) == record


def test_unknown_fields_are_dropped_and_missing_ones_named():
    data = record_to_dict(make_record(CELL))
    assert read({**data, "later": 1, "ranks": [{**RANK, "later": 1}]}) == make_record(CELL, ranks=[RANK])
    del data["cell_id"]
    with pytest.raises(DamagedFile, match="cell_id: field required"):
        read(data)


def test_fields_of_a_newer_version_have_their_defaults_in_an_older_record():
    needed = ("schema_version", "cell_id", "config_digest", "slug", "axes", "overrides", "sizes", "status")
    old = read({name: value for name, value in record_to_dict(make_record(CELL)).items() if name in needed})
    assert (old.metrics, old.ranks, old.earlier_attempts, old.environment, old.fault) == ({}, [], [], {}, None)


@pytest.mark.parametrize("version", [None, 0, 2, "1", True, 1.0])
def test_another_schema_version_is_refused(version):
    with pytest.raises(DamagedFile, match="schema_version"):
        read({**record_to_dict(make_record(CELL)), "schema_version": version})


def test_writes_are_whole_or_not_at_all(tmp_path):
    path = tmp_path / "record.json"
    write_json(path, {"a": 1})
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(path, {"a": float("nan")})
    assert json.loads(path.read_text()) == {"a": 1}
    assert [entry.name for entry in tmp_path.iterdir()] == ["record.json"]


def test_a_failed_write_leaves_no_temporary_file(tmp_path):
    path = tmp_path / "there-is-a-directory"
    path.mkdir()
    with pytest.raises(OSError):
        write_text(path, "x")
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


def test_the_published_schema_is_current():
    assert record_schema.DEFAULT_PLACE.read_text() == record_schema.schema_text(), (
        "python -m benchrunner.store.record_schema"
    )


def test_every_metric_is_defined():
    text = (CHECKOUT / "docs" / "metrics.md").read_text()
    assert [name for name in Metrics.__annotations__ if f"`{name}`" not in text] == [], "docs/metrics.md defines them"


@pytest.mark.parametrize(
    "record",
    [
        make_record(CELL),
        make_record(CELL, "oom", "oom.device", "out of memory", evidence={"rank": 1}),
        make_record(CELL, "unsupported", "rule.seq_len", "too long", attempt=0, started_at=None, wall_s=None),
        make_record(CELL, checks={"shape": {"ok": None, "expected": 1, "observed": None}}, devices_used=[0, 1]),
    ],
    ids=lambda record: record.status,
)
def test_records_validate(record):
    jsonschema.validate(record_to_dict(record), SCHEMA)


@pytest.mark.parametrize(
    "record",
    [
        make_record(CELL, "failed"),
        make_record(CELL, "broken", "x", "y"),
        replace(make_record(CELL), wall_s="long"),
        replace(make_record(CELL), flags="unstable"),
    ],
    ids=["no reason", "no such status", "text for a number", "text for a list"],
)
def test_what_is_no_record_does_not_validate(record):
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(record_to_dict(record), SCHEMA)


def test_the_schema_is_a_schema():
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


def test_the_schema_can_be_written_anywhere(tmp_path, monkeypatch):
    monkeypatch.setattr("sys.argv", ["record_schema", str(tmp_path / "s.json")])
    record_schema.main()
    assert json.loads((tmp_path / "s.json").read_text()) == SCHEMA


def test_the_number_of_a_process_is_written_from_the_second_on():
    record = make_record(make_cell())
    assert "repeat" not in record_to_dict(record)
    assert record_to_dict(replace(record, repeat=2))["repeat"] == 2
