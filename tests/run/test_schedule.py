from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchrunner.machine.devices import Locks
from benchrunner.run.schedule import Queue, make_pool
from samples import CPU, H200, make_cell, plan_cell


def cell(devices, number=0, nodes=1, **leaves):
    kind = "single" if devices == 1 else "ddp"
    return plan_cell(make_cell(strategy=kind, leaves={"devices": devices, "seed": number, "nodes": nodes} | leaves))


def test_cells_run_side_by_side_on_disjoint_devices():
    queue = Queue([cell(1, n) for n in range(6)], make_pool(H200, is_local=True))
    assert [devices for _, devices in queue.start()] == [(0,), (1,), (2,), (3,)]
    assert queue.start() == []
    queue.pool.give_back((2,))
    assert [devices for _, devices in queue.start()] == [(2,)]
    assert len(queue) == 1


def test_the_largest_come_first_and_the_plan_decides_among_equals():
    cells = [cell(1, 0), cell(2, 1), cell(4, 2), cell(1, 3)]
    queue = Queue(cells, make_pool(H200, is_local=True))
    order = []
    while len(queue):
        for planned, devices in queue.start():
            order.append(cells.index(planned))
            queue.pool.give_back(devices)
    assert order == [2, 1, 0, 3]


def test_a_cpu_runs_one_cell_at_a_time():
    queue = Queue([cell(2, 0), cell(1, 1)], make_pool(CPU, is_local=True))
    assert len(queue.start()) == 1
    assert queue.start() == []


def test_a_cluster_takes_many():
    queue = Queue([cell(8, n) for n in range(10)], make_pool(H200, is_local=False))
    assert len(queue.start()) == 10


def test_devices_of_another_sweep_are_waited_for_inside_the_turnstile(tmp_path):
    mine, others = Locks(tmp_path, "abcd"), Locks(tmp_path, "abcd")
    queue = Queue([cell(2, 0), cell(1, 1)], make_pool(H200, is_local=True, locks=mine))
    assert all(others.take(device) for device in range(4))
    assert queue.start() == [] and queue.pool.is_contended
    assert not others.enter()
    others.give_back(3)
    assert [devices for _, devices in queue.start()] == [(3,)]
    others.give_back(0)
    others.give_back(1)
    assert [devices for _, devices in queue.start()] == [(0, 1)]
    assert others.enter()


def test_all_devices_are_waited_for_where_another_sweep_has_one_of_them(tmp_path):
    mine, others = Locks(tmp_path, "abcd"), Locks(tmp_path, "abcd")
    queue = Queue([cell(4, 0)], make_pool(H200, is_local=True, locks=mine))
    assert others.take(3)
    assert queue.start() == [] and queue.pool.is_contended


def test_one_who_waits_for_devices_keeps_others_out_and_hears_of_it(tmp_path):
    mine, others = Locks(tmp_path, "abcd"), Locks(tmp_path, "abcd")
    queue = Queue([cell(1)], make_pool(H200, is_local=True, locks=mine))
    assert others.enter() and queue.start() == [] and queue.pool.is_contended
    others.leave()
    assert len(queue.start()) == 1 and not queue.pool.is_contended


def test_one_who_waits_for_devices_of_his_own_lets_others_in(tmp_path):
    mine, others = Locks(tmp_path, "abcd"), Locks(tmp_path, "abcd")
    queue = Queue([cell(3, 0), cell(2, 1)], make_pool(H200, is_local=True, locks=mine))
    assert len(queue.start()) == 1 and len(queue) == 1
    assert others.enter()


@pytest.mark.parametrize("waiting", [[], [cell(1, 7)]], ids=["nothing waits", "nothing is free"])
def test_one_who_has_nothing_to_start_does_not_wait_for_others(tmp_path, waiting):
    mine, others = Locks(tmp_path, "abcd"), Locks(tmp_path, "abcd")
    pool = make_pool(H200, is_local=True, locks=mine)
    pool.free = set(range(4 - len(waiting) * 4))
    assert others.enter()
    assert Queue(waiting, pool).start() == [] and not pool.is_contended


def test_the_cores_of_a_machine_are_waited_for_as_well(tmp_path):
    mine, others = (Locks(tmp_path, [["core0", "core1"]]) for _ in range(2))
    queue = Queue([cell(1)], make_pool(CPU, is_local=True, locks=mine))
    assert others.take(0)
    assert queue.start() == [] and queue.pool.is_contended


def test_a_cell_that_waits_again_comes_first_and_one_that_is_dropped_never():
    queue = Queue([cell(1, n) for n in range(3)], make_pool(CPU, is_local=True))
    ((first, places),) = queue.start()
    queue.pool.give_back(places)
    queue.put_first(first)
    (dropped,) = queue.drop(lambda planned: "why" if planned.cell.config.seed == 1 else None)
    assert dropped[0].cell.config.seed == 1 and dropped[1] == "why"
    assert queue.start()[0][0] is first and len(queue) == 1


def test_what_is_added_waits_before_its_cell_and_its_repeats_behind_everything():
    first, second, last = (cell(1, number) for number in range(3))
    queue = Queue([first, second, last], make_pool(H200, is_local=True))
    probe, elsewhere = cell(1, 7), cell(1, 8)
    again = replace(probe, repeat=2)
    queue.put_before(second, [probe, again])
    assert list(queue) == [first, probe, second, last, again]
    queue.put_before(cell(1, 9), [elsewhere])
    assert list(queue) == [elsewhere, first, probe, second, last, again], "before all, where its cell does not wait"


def test_the_given_order_can_be_kept():
    cells = [cell(1, 0), cell(2, 1), cell(4, 2)]
    queue = Queue(cells, make_pool(H200, is_local=True), largest_first=False)
    assert [planned for planned, _ in queue.start()] == cells[:2]


def test_chosen_cells_wait_for_all_others():
    cells = [cell(1, number) for number in range(3)]
    assert list(Queue(cells, make_pool(CPU, is_local=True), last={cells[0].place})) == [*cells[1:], cells[0]]


def test_an_exclusive_cell_takes_every_device_that_is_left():
    pool = make_pool(H200, is_local=True)
    assert (pool.need(cell(2)), pool.need(cell(2, exclusive=True))) == (2, 4)
    pool.quarantine(0, "lost")
    assert pool.need(cell(2, exclusive=True)) == 3
    assert pool.located((1, 2)) == ((0,), (1, 2))


def test_what_can_never_run_here_is_told():
    pool = make_pool(H200, is_local=True)
    assert pool.obstacle(cell(4)) is None
    assert pool.obstacle(cell(8)) == "needs 8 devices a node, 4 visible"
    assert "needs 2 nodes" in pool.obstacle(cell(1, nodes=2))
    assert "needs 2 nodes" in make_pool(CPU, is_local=True).obstacle(cell(1, nodes=2))
    assert make_pool(H200, is_local=False).obstacle(cell(8, nodes=2)) is None


def test_a_machine_that_does_not_become_empty_runs_nothing_more():
    pool = make_pool(CPU, is_local=True)
    assert pool.obstacle(cell(1)) is None
    pool.quarantine(0, "processes 7 of the cell cannot be killed")
    assert pool.obstacle(cell(1)) == "the machine is still occupied: processes 7 of the cell cannot be killed"


def test_a_device_that_is_given_up_is_handed_out_no_more():
    pool = make_pool(H200, is_local=True)
    pool.quarantine(0, "lost")
    assert pool.take(1) == (1,) and pool.take(3) is None
    pool.give_back((0, 1))
    assert pool.take(3) == (1, 2, 3)


def test_each_cell_that_waits_may_be_overtaken_as_often_as_any():
    first, second = cell(3, 20), cell(3, 21)
    small = [cell(1, number) for number in range(8)]
    queue = Queue([first, *small[:4], second, *small[4:]], make_pool(H200, is_local=True), largest_first=False)
    queue.pool.free = {2, 3}
    for _ in range(3):
        for planned, devices in queue.start():
            assert planned in small[:4]
            queue.pool.give_back(devices)
    queue.pool.give_back((0,))
    assert queue.start() == [(first, (0, 2, 3))]
    queue.pool.give_back((2, 3))
    assert [planned for planned, _ in queue.start()] == small[4:6]


def test_a_cell_is_overtaken_as_often_as_there_are_devices_and_no_more():
    queue = Queue([cell(1, 0)], make_pool(H200, is_local=True))
    busy = [devices for _, devices in queue.start()]
    queue = Queue([cell(4, 1), *(cell(1, number) for number in range(2, 12))], queue.pool)
    overtaking = [devices for _, devices in queue.start()]
    assert len(overtaking) == 3
    queue.pool.give_back(overtaking.pop())
    overtaking += [devices for _, devices in queue.start()]
    assert len(overtaking) == 3, "the fourth"
    while overtaking:
        queue.pool.give_back(overtaking.pop())
        assert queue.start() == [], "kept for the one that waits"
    queue.pool.give_back(busy.pop())
    ((first, devices),) = queue.start()
    assert first.cell.sizes.devices == len(devices) == 4


@given(st.lists(st.integers(1, 4), min_size=1, max_size=40), st.randoms(use_true_random=False))
def test_no_cell_starves_and_no_device_is_given_twice(needs, random):
    cells = [cell(need, number) for number, need in enumerate(needs)]
    queue = Queue(cells, make_pool(H200, is_local=True))
    running, started, overtaken = [], [], 0
    while len(queue) or running:
        waiting_first = max((planned.cell.sizes.devices for planned in queue._waiting), default=0)
        for planned, devices in queue.start():
            assert not any(set(devices) & set(others) for _, others in running)
            assert len(devices) == planned.cell.sizes.devices
            overtaken = overtaken + 1 if planned.cell.sizes.devices < waiting_first else 0
            assert overtaken <= 4
            running.append((planned, devices))
            started.append(planned)
        if running:
            queue.pool.give_back(running.pop(random.randrange(len(running)))[1])
    assert sorted(map(id, started)) == sorted(map(id, cells))


# --- an allocation of several nodes


def test_small_cells_fill_the_fullest_node_and_large_ones_get_whole_nodes():
    pool = make_pool(H200, is_local=True, num_nodes=2)
    small, half, whole, double = cell(1), cell(2, 1), cell(4, 2), cell(4, 3, nodes=2)
    assert [pool.need(one) for one in (small, half, whole, double)] == [1, 2, 4, 8]
    assert pool.take(2) == (0, 1) and pool.take(4) == (4, 5, 6, 7)
    assert pool.take(4) is None and pool.take(8) is None
    pool.give_back((4, 5, 6, 7))
    assert pool.take(1) == (2,) and pool.take(2) == (4, 5)
    assert pool.located((4, 5)) == ((1,), (0, 1)) and pool.located(range(8)) == ((0, 1), (0, 1, 2, 3))


def test_the_fullest_node_is_used_up_before_an_empty_one():
    pool = make_pool(H200, is_local=True, num_nodes=2)
    assert pool.take(4) == (0, 1, 2, 3) and pool.take(2) == (4, 5)
    pool.give_back((0, 1, 2, 3))
    assert pool.take(2) == (6, 7)


def test_a_cell_of_several_nodes_gets_those_that_are_empty():
    pool = make_pool(H200, is_local=True, num_nodes=3)
    assert pool.need(cell(4, nodes=2)) == 8
    assert pool.take(1) == (0,) and pool.take(8) == tuple(range(4, 12))


def test_an_exclusive_cell_has_the_allocation_to_itself():
    pool = make_pool(H200, is_local=True, num_nodes=2)
    assert [pool.need(cell(1, nodes=nodes, exclusive=True)) for nodes in (1, 2)] == [8, 8]


def test_an_allocation_says_what_it_cannot_run():
    pool = make_pool(H200, is_local=True, num_nodes=2)
    assert pool.obstacle(cell(4, nodes=2)) is None
    assert pool.obstacle(cell(4, nodes=3)) == "needs 3 nodes, and the allocation has 2"
    assert pool.obstacle(cell(8)) == "needs 8 devices a node, 4 visible"
    two_each = make_pool(replace(H200, num_devices=2), is_local=True, num_nodes=2)
    assert two_each.obstacle(cell(4)) == "needs 4 devices a node, 2 visible"
    assert make_pool(CPU, is_local=True, num_nodes=2).obstacle(cell(4)) is None, "its ranks share the cores"
    pool.quarantine(5, "lost")
    assert pool.obstacle(cell(4, nodes=2)) == "needs 2 nodes, and the allocation has 1"


def test_a_node_without_gpus_runs_one_cell_at_a_time():
    queue = Queue([cell(2, n) for n in range(3)], make_pool(CPU, is_local=True, num_nodes=2))
    assert [places for _, places in queue.start()] == [(0,), (1,)]


# --- a plan that is shared


class Gate:
    def __init__(self, *closed):
        self.closed, self.taken = closed, []

    def is_open(self, planned):
        return planned not in self.closed

    def take(self, planned):
        self.taken.append(planned)
        return len(self.taken) > 1


def test_a_cell_that_the_gate_does_not_let_pass_waits_and_holds_no_device():
    cells = [cell(2, n) for n in range(3)]
    gate = Gate(cells[0])
    queue = Queue(cells, make_pool(H200, is_local=True), gate=gate)
    assert queue.start() == [(cells[2], (0, 1))] and gate.taken == cells[1:]
    assert list(queue) == cells[:2] and queue.pool.free == {2, 3}
    assert queue.drop(lambda planned: "doom") == [(cells[1], "doom")]
    assert queue.forget({cells[0].cell.slug}) == [cells[0]] and len(queue) == 0


def test_only_the_process_that_others_concluded_is_forgotten():
    first = cell(1, 0)
    second = replace(first, repeat=2)
    queue = Queue([first, second], make_pool(CPU, is_local=True))
    assert queue.forget([second.place]) == [second] and list(queue) == [first]
