import json
from dataclasses import asdict

import pytest

from benchrunner.core.errors import DamagedFile
from benchrunner.core.files import write_json
from benchrunner.core.rank_file import RankFile, read_exits, read_rank_file

ERROR = {"kind": "oom", "type": "OutOfMemoryError", "message": "no", "traceback": "…", "at": 1.0, "memory": {}}


@pytest.mark.parametrize(
    "status",
    [
        RankFile(rank=1, pid=7, phases_s={"start": 0.5}),
        RankFile(rank=1, pid=7, state="error", phase="measure", error=ERROR),
        RankFile(rank=1, pid=7, state="done", phase="teardown", result={"tokens_per_step": 3, "losses": [1.0]}),
    ],
    ids=lambda status: status.state,
)
def test_a_rank_file_survives_json_to_the_letter(tmp_path, status):
    path = tmp_path / "rank1.json"
    write_json(path, asdict(status))
    read = read_rank_file(path)
    assert read == status and json.dumps(asdict(read)) == json.dumps(asdict(status))


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"rank": 2}, "it is the file of rank 2"),
        ({"phase": "lunch"}, "phase: input should be 'start', "),
        ({"state": "asleep"}, "state: input should be 'running', 'done' or 'error'"),
        ({"result": {"memory": {"window": 1}}}, "result.memory.window: "),
        ({"result": {"losses": ["low"]}}, "result.losses.0: input should be a valid number"),
        ({"result": {"checks": {"shape": {}}}}, "result.checks.shape.ok: field required"),
        ({"result": {"checks": {"shape": {"ok": 1, "expected": []}}}}, "result.checks.shape.ok: "),
        ({"error": {"kind": "oom"}}, "error.type: field required"),
    ],
)
def test_what_is_wrong_is_named_with_its_place(tmp_path, change, why):
    path = tmp_path / "rank1.json"
    write_json(path, asdict(RankFile(rank=1, pid=7)) | change)
    with pytest.raises(DamagedFile) as caught:
        read_rank_file(path)
    assert str(caught.value).startswith(why)


def test_exit_codes_keep_their_order(tmp_path):
    listed = [{"rank": 1, "code": 1}, {"rank": 0, "code": -15}]
    write_json(tmp_path / "exits0.json", {"exits": listed})
    assert list(read_exits(tmp_path / "exits0.json").items()) == [(1, 1), (0, -15)]
