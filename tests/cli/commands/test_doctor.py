import json

from benchrunner.core.faults import FAULTS
from benchrunner.plan import doctor
from benchrunner.plan.doctor import Diagnosis


def test_faults_are_listed(bench):
    assert "sigkill" in bench("doctor", "--faults")[1]
    assert [line.split()[0] for line in bench("doctor", "--faults")[1].splitlines()] == list(FAULTS)


def test_the_machine_is_examined_and_what_was_found_is_shown(bench, monkeypatch):
    monkeypatch.setattr(doctor, "examine", lambda: Diagnosis([("Device", "1 × Abacus")], {}))
    assert bench("doctor")[:2] == (0, "Device: 1 × Abacus\n")


def test_a_diagnosis_is_one_document(bench, monkeypatch):
    monkeypatch.setattr(
        doctor, "examine", lambda: Diagnosis([("Device", "1 × Abacus")], {"precision": [("no", "fp8", "no beads")]})
    )
    code, out, _, _ = bench("doctor", "--json")
    assert code == 0 and json.loads(out) == doctor.diagnosis_document(doctor.examine())
