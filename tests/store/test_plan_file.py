"""Where a sweep's directory appears, and what is said of a directory that is none."""

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from benchrunner.core.errors import SweepDirError, UsageError
from benchrunner.core.paths import SweepPaths
from benchrunner.plan.plan import PlannedCell
from benchrunner.plan.search import probe_of
from benchrunner.store import plan_file
from benchrunner.store.plan_file import load_plan, plan_document, write_plan
from benchrunner.store.probes import write_probe
from fake_sweeps import make_plan
from samples import H200, make_cell, plan_cell

STAMP = "20261121T030000Z"


@pytest.fixture
def plan():
    return make_plan([plan_cell(make_cell())])


def test_the_third_of_three_at_once_has_the_third_name(plan, tmp_path):
    assert [write_plan(plan, tmp_path).name for _ in range(3)] == [STAMP, f"{STAMP}-2", f"{STAMP}-3"]


def test_a_name_that_another_took_meanwhile_is_left_to_it(plan, tmp_path, monkeypatch):
    rename = Path.rename

    def too_late(self, target):
        if target.name == STAMP and not target.exists():
            (target / "full").mkdir(parents=True)
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", too_late)
    assert write_plan(plan, tmp_path).name == f"{STAMP}-2"


def test_a_place_that_refuses_a_rename_is_named(plan, tmp_path, monkeypatch):
    def refuse(self, target):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(UsageError) as refused:
        write_plan(plan, tmp_path)
    assert str(refused.value) == f"out_dir: cannot write {tmp_path / 'cli'}: Permission denied"
    assert list((tmp_path / "cli").iterdir()) == []


def test_an_error_without_words_is_named_by_itself(plan, tmp_path, monkeypatch):
    monkeypatch.setattr(plan_file, "write_text", lambda *_: (_ for _ in ()).throw(OSError("odd")))
    with pytest.raises(UsageError, match=r"cannot write .*: odd$"):
        write_plan(plan, tmp_path)


def test_a_path_that_cannot_be_printed_is_named(plan, tmp_path):
    with pytest.raises(UsageError, match=r"out_dir: '.*a\\nb/cli' holds a line break"):
        write_plan(plan, tmp_path / "a\nb")


def test_a_plan_is_compact_and_holds_no_number_that_json_has_not(plan, tmp_path):
    text = (write_plan(plan, tmp_path) / "plan.json").read_text()
    assert '": ' not in text and text.endswith("}\n")
    odd = replace(plan.cells[0], predicted={"step_s": float("nan")})
    with pytest.raises(ValueError, match="JSON"):
        write_plan(replace(plan, cells=[odd]), tmp_path)


def test_latest_is_a_relative_link_that_is_moved_on(plan, tmp_path):
    write_plan(plan, tmp_path)
    (tmp_path / f".latest-{os.getpid()}").write_text("left by one that died")
    second = write_plan(plan, tmp_path)
    assert Path(os.readlink(tmp_path / "latest")) == second.relative_to(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cli", "latest"]


def test_the_notes_of_a_plan_are_kept(plan, tmp_path):
    noted = replace(plan, notes=("odd",))
    assert load_plan(write_plan(noted, tmp_path)) == noted


def test_a_directory_of_the_users_own_that_is_called_latest_stays(plan, tmp_path):
    (tmp_path / "latest").mkdir()
    write_plan(plan, tmp_path)
    assert not (tmp_path / "latest").is_symlink()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cli", "latest"]


def test_of_a_directory_of_sweeps_the_newest_is_named(tmp_path):
    with pytest.raises(SweepDirError) as refused:
        load_plan(tmp_path)
    assert str(refused.value).endswith("cannot read plan.json (No such file or directory)")
    for name in ("a", "c", "b", ".tmp-z"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "plan.json").write_text("{}")
    with pytest.raises(SweepDirError, match=rf"; it holds sweeps, the last is {tmp_path}/c$"):
        load_plan(tmp_path)


def test_the_document_says_of_a_cell_what_the_plan_does():
    cell = make_cell(strategy="ddp", leaves={"micro_batch_size": 3, "seq_len": 64, "devices": 2})
    planned = replace(plan_cell(cell, "unsupported", "rule.x", "no", ["tight"]), left_out=("seed=1",))
    search = plan_cell(make_cell(leaves={"micro_batch_size": "max"}))
    document = plan_document(make_plan([planned, search], H200))
    assert (document["schema_version"], document["hardware"]["name"]) == (1, "h200-sxm-141gb")
    first, second = document["cells"]
    num_parameters = first.pop("num_parameters")
    assert num_parameters > 1000
    assert first == {
        "cell_id": cell.cell_id,
        "config_digest": cell.config_digest,
        "slug": cell.slug,
        "axes": dict(cell.axes),
        "overrides": " ".join(cell.as_overrides()),
        "micro_batch_size": 3,
        "global_batch_size": 6,
        "search": None,
        "seq_len": 64,
        "devices": 2,
        "nodes": 1,
        "world_size": 2,
        "verdict": "unsupported",
        "reason_code": "rule.x",
        "reason": "no",
        "flags": ["tight"],
        "predicted": None,
        "left_out": ["seed=1"],
    }
    assert (second["search"], second["micro_batch_size"], second["global_batch_size"]) == ("max", None, None)
    json.dumps(document, allow_nan=False)


def test_each_cell_keeps_its_own_settings(tmp_path):
    changed = [{"timeout_s": 9.0, "retries": 4}, {"timeout_s": 5.0, "retries": 4}, {"retries": 4}]
    cells = [make_cell(leaves={"seed": seed, **own}) for seed, own in enumerate(changed, 1)]
    loaded = load_plan(write_plan(make_plan([plan_cell(cell) for cell in cells]), tmp_path))
    assert [one.cell.overrides for one in loaded.cells] == [cell.overrides for cell in cells]


def test_all_that_is_known_of_a_cell_comes_back(tmp_path):
    first, second = (plan_cell(make_cell(leaves={"seed": seed})) for seed in (0, 1))
    known = {"reason_code": "rule.x", "reason": "no", "flags": ["memory_tight"], "evidence": {"rule": "x"}}
    second = replace(
        second, verdict="unsupported", predicted={"method": "analytic"}, left_out=("generate.new_tokens=3",), **known
    )
    plan = replace(make_plan([first, second]), benchrunner="0.0.1")
    assert load_plan(write_plan(plan, tmp_path)) == plan


def test_a_plan_of_a_version_without_cards_has_none(plan, tmp_path):
    directory = write_plan(plan, tmp_path)
    path = directory / "plan.json"
    document = json.loads(path.read_text())
    document.pop("cards", None)
    path.write_text(json.dumps(document))
    assert load_plan(directory).cards == {}


def test_probes_are_there_with_the_plan(tmp_path):
    search = plan_cell(make_cell(leaves={"micro_batch_size": "max"}))
    directory = write_plan(make_plan([search]), tmp_path)
    probe = PlannedCell(cell=probe_of(search.cell, 8, {search.cell.slug}), probe_of=search.cell.slug)
    write_probe(SweepPaths(directory), probe)
    assert load_plan(directory).cells == [search, probe]


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda document: document.update(cells=[]), "damaged: it has no cells"),
        (lambda document: document["common"]["launcher"].pop("name"), "damaged: launcher.name: field required"),
        (lambda document: document["cells"][0]["sizes"].append(7), "damaged: "),
        (lambda document: document["cells"][0].update(options={"model": 0}), "damaged: KeyError: 'model'"),
    ],
    ids=["no cells", "no name", "a size more", "no section"],
)
def test_what_is_missing_from_a_plan_is_named(plan, tmp_path, damage, said):
    directory = write_plan(plan, tmp_path)
    path = directory / "plan.json"
    document = json.loads(path.read_text())
    damage(document)
    path.write_text(json.dumps(document))
    with pytest.raises(SweepDirError) as refused:
        load_plan(directory)
    assert str(refused.value).startswith(f"{path}: {said}")
