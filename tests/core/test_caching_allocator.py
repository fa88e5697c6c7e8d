import pytest

from benchrunner.core.caching_allocator import CachingAllocator, Exhausted, Steps

MIB = 2**20


def after(*steps, **capacity):
    """An allocator that took these: (key, bytes) is an allocation, a bare key a free."""
    allocator = CachingAllocator(**capacity)
    for step in steps:
        if isinstance(step, tuple):
            allocator.allocate(*step)
        else:
            allocator.free(step)
    return allocator


def test_segments_by_size():
    assert after((1, 100)).reserved == 2 * MIB
    assert after((1, 2 * MIB)).reserved == 20 * MIB
    assert after((1, 11 * MIB)).reserved == 12 * MIB


def test_small_blocks_share_a_segment_and_never_a_large_one():
    assert after((1, MIB // 2), (2, MIB // 2), (3, MIB // 2)).reserved == 2 * MIB
    assert after((1, 5 * MIB), (2, 512)).reserved == 22 * MIB


def test_what_is_freed_is_used_again():
    allocator = after((1, 64 * MIB), 1, (2, 64 * MIB), 2, (3, 20 * MIB), (4, 20 * MIB))
    assert allocator.reserved == allocator.peak_reserved == 64 * MIB


def test_neighbours_that_are_free_grow_together():
    whole = ((1, 64 * MIB), 1, (2, 32 * MIB), (3, 32 * MIB))
    assert after(*whole, 2, 3, (4, 64 * MIB)).reserved == 64 * MIB
    assert after(*whole, 2, (4, 64 * MIB)).reserved == 128 * MIB


def test_a_hole_that_is_too_small_is_fragmentation():
    assert after((1, 40 * MIB), 1, (2, 30 * MIB), (3, 20 * MIB)).reserved == 60 * MIB


def test_a_large_block_keeps_what_is_left_up_to_a_mebibyte():
    assert after((1, 64 * MIB), 1, (2, 63 * MIB + 512), (3, 512)).reserved == 66 * MIB


# --- a device that has no more


def test_what_is_free_as_a_whole_is_given_back_for_a_larger_block():
    twice = ((1, 64 * MIB), (2, 16 * MIB), 1, 2, (3, 100 * MIB))
    allocator = after(*twice, capacity=100 * MIB)
    assert (allocator.reserved, allocator.num_retries) == (100 * MIB, 1)
    assert after(*twice, capacity=180 * MIB).num_retries == 0


def test_every_retry_counts():
    allocator = after((1, 64 * MIB), 1, (2, 80 * MIB), 2, (3, 96 * MIB), capacity=100 * MIB)
    assert (allocator.reserved, allocator.num_retries) == (96 * MIB, 2)


def test_what_is_in_use_in_part_is_not_given_back():
    with pytest.raises(Exhausted, match=f"{100 * MIB} bytes, of which {86 * MIB} are there"):
        after((1, 64 * MIB), 1, (2, 32 * MIB), (3, 16 * MIB), 3, (4, 100 * MIB), capacity=150 * MIB)


def test_after_a_retry_blocks_are_found_as_before():
    steps = ((1, 64 * MIB), (2, 32 * MIB), 2, (3, 48 * MIB), (4, 24 * MIB), 4, (5, 20 * MIB))
    allocator = after(*steps, capacity=140 * MIB)
    assert (allocator.num_retries, allocator.reserved) == (1, 136 * MIB)


# --- a step that comes again


def test_gradients_go_as_the_next_step_begins():
    steps = Steps(held=[(1, 30 * MIB)], step=[(2, 20 * MIB), (3, 40 * MIB), (2, 0)])
    assert steps.replay().peak_reserved == 90 * MIB


def test_what_the_first_step_leaves_is_beside_all_others():
    """It lies in the one block that was free, so that the second step needs another."""
    step = [(2, 100 * MIB), (2, 0)]
    assert Steps(held=[], step=step).replay().peak_reserved == 100 * MIB
    assert Steps(held=[], step=step, left=[10 * MIB] * 2).replay().peak_reserved == 200 * MIB
    assert Steps(held=[], step=step, left=[60 * MIB]).replay().peak_reserved == 200 * MIB, "once, not in every step"


def test_what_is_held_may_be_let_go_of_and_taken_again():
    steps = Steps(held=[(1, 32 * MIB)], step=[(1, 0), (1, 64 * MIB)])
    assert steps.replay().peak_reserved == 96 * MIB


def test_the_least_is_with_retries_and_never_below_what_is_in_use():
    steps = Steps(held=[(1, 100 * MIB)], step=[(2, 60 * MIB), (2, 0), (3, 100 * MIB), (3, 0)])
    assert steps.replay().peak_reserved == 260 * MIB
    assert 200 * MIB <= steps.least_bytes() <= 200.3 * MIB
    assert steps.replay(steps.least_bytes()).num_retries > 0
    with pytest.raises(Exhausted):
        steps.replay(200 * MIB - 1)
