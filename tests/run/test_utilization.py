import pytest

from benchrunner.run.utilization import Utilization


def test_the_share_of_time_at_work_while_cells_waited():
    usage = Utilization(2)
    usage.start("a", 1, 10.0)
    usage.start("b", 1, 10.0)
    usage.end("a", 14.0)
    usage.waiting(15.0)
    usage.start("c", 1, 15.0)
    usage.end("b", 18.0)
    usage.end("c", 30.0)
    assert usage.busy_share() == pytest.approx((4 + 5) / (2 * 5))
    assert usage.concurrency() == pytest.approx((4 + 8 + 15) / 20)


def test_a_cell_on_several_devices_counts_for_each():
    usage = Utilization(4)
    usage.start("a", 4, 0.0)
    usage.waiting(8.0)
    assert usage.busy_share() == 1.0


@pytest.mark.parametrize(("seconds", "share"), [(0.0, None), (0.5, 1.0)])
def test_where_no_time_passed_there_is_no_share_of_it(seconds, share):
    usage = Utilization(1)
    usage.start("a", 1, 10.0)
    usage.waiting(10.0 + seconds)
    usage.end("a", 10.0 + seconds)
    assert usage.busy_share() == usage.concurrency() == share


def test_nothing_is_claimed_where_nothing_waited():
    usage = Utilization(2)
    assert usage.busy_share() is None and usage.concurrency() is None
    usage.start("a", 1, 0.0)
    usage.end("a", 2.0)
    assert usage.busy_share() is None and usage.concurrency() == 1.0
    remote = Utilization(0)
    remote.start("a", 1, 0.0)
    remote.waiting(2.0)
    assert remote.busy_share() is None
