from dataclasses import replace

from benchrunner.outcome.outcome import Outcome
from benchrunner.run.options import RunOptions
from benchrunner.run.policies import Policies, comparable, make_policies
from benchrunner.run.policy import Policy
from fake_sweeps import cells, make_plan
from samples import CPU, make_cell, make_record, plan_cell


class Refusing(Policy):
    """Refuses every cell, in its own name."""

    def __init__(self, name, stopped_by=None):
        self.code, self.stopped_by, self.learned, self.heard = f"skipped.{name}", stopped_by, [], []

    def learn(self, planned, record):
        self.learned.append(record)

    def refused(self, planned, outcome):
        self.heard.append((planned, outcome))

    def refusal(self, planned, now_s):
        return Outcome(status="skipped", reason_code=self.code, reason="no")

    def note(self, num_refused, *, at_end):
        return f"{num_refused} {self.code}" if at_end else None


def test_a_policy_does_nothing_by_itself():
    (planned,) = cells(1)
    policy = Policies([Policy()])
    policy.learn(planned, make_record(planned.cell))
    assert policy.refusal(planned, 0.0) is policy.ending(0.0) is policy.stopped_by is None
    assert policy.rerun(planned, Outcome(status="failed")) is None and policy.notes({}, at_end=True) == []


def test_the_first_that_refuses_decides_and_all_learn():
    (planned,) = cells(1)
    policies = [Policy(), Refusing("first"), Refusing("second", stopped_by="second")]
    asked = Policies(policies)
    assert asked.refusal(planned, 0.0).reason_code == "skipped.first"
    asked.learn(planned, make_record(planned.cell))
    assert [len(policy.learned) for policy in policies[1:]] == [1, 1]
    assert asked.stopped_by == "second"
    refused = Outcome(status="skipped", reason_code="skipped.first")
    asked.refused(planned, refused)
    assert [policy.heard for policy in policies[1:]] == [[(planned, refused)]] * 2


def test_a_search_is_decided_by_policies_for_searches_alone():
    search, cell = (plan_cell(make_cell(leaves={"micro_batch_size": size})) for size in ("max", 1))
    first, second = Refusing("first"), Refusing("second")
    second.decides_searches = True
    asked = Policies([first, second])
    assert [asked.refusal(one, 0.0).reason_code for one in (search, cell)] == ["skipped.second", "skipped.first"]


def test_records_are_compared_under_the_faults_that_are_planted_now():
    plain, faulty = (make_record(one.cell) for one in cells(2))
    fault = f"hang@1/{faulty.slug}"
    records = {plain.slug: plain, faulty.slug: replace(faulty, fault=fault)}
    assert comparable(records, RunOptions(fault=fault)) == records
    assert comparable(records, RunOptions(fault=None)).keys() == {plain.slug}
    assert comparable(records, RunOptions(fault="hang@1")) == {}


def test_each_is_told_how_many_cells_it_refused():
    asked = Policies([Refusing("first"), Refusing("second")])
    refused = {"skipped.first": 3, "oom.device": 1}
    assert asked.notes(refused) == []
    assert asked.notes(refused, at_end=True) == ["3 skipped.first", "0 skipped.second"]


def test_the_options_and_the_settings_decide_which_there_are():
    small, large = cells(2, brake=1)
    plan = make_plan([small, large])
    failed = make_record(small.cell, "failed", "failed.exit", "no")
    lasting = make_policies(plan, {}, CPU, RunOptions(fault=None))
    assert lasting.refusal(large, 1e9) is None and lasting.ending(1e9) is None
    lasting.learn(small, failed)
    assert lasting.refusal(large, 0.0).reason_code == "skipped.brake"
    bounded = make_policies(plan, {}, CPU, RunOptions(fault=None, budget_s=60.0))
    assert bounded.refusal(large, 1e9).reason_code == "skipped.budget" and bounded.ending(1e9) == "budget"
