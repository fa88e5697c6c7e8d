from benchrunner.core.caching_allocator import CachingAllocator

MIB = 2**20


def after(*steps):
    """An allocator that took these: (key, bytes) is an allocation, a bare key a free."""
    allocator = CachingAllocator()
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
