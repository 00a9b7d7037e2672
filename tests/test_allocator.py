import pytest

from ftcourse.simulate.allocator import MIB, CachingAllocator, replay


@pytest.mark.parametrize(
    ("asked", "allocated", "reserved"),
    [
        (1, 512, 2 * MIB),
        (513, 1024, 2 * MIB),
        (MIB, MIB, 2 * MIB),
        (MIB + 1, MIB + 512, 20 * MIB),
        (10 * MIB, 10 * MIB, 10 * MIB),
        (11 * MIB, 12 * MIB, 12 * MIB),  # one MiB that remains is no block of its own
        (10 * MIB + 1, 10 * MIB + 512, 12 * MIB),
    ],
)
def test_a_first_request_takes_a_segment(asked, allocated, reserved):
    allocator = CachingAllocator()
    allocator.take(asked)
    assert (allocator.allocated, allocator.reserved) == (allocated, reserved)


def test_what_is_given_back_serves_the_next_request():
    allocator = CachingAllocator()
    for _ in range(3):
        allocator.give(allocator.take(30 * MIB))
    assert (allocator.allocated, allocator.reserved) == (0, 30 * MIB)


def test_neighbours_are_joined_so_that_a_large_request_fits_again():
    allocator = CachingAllocator()
    blocks = [allocator.take(5 * MIB) for _ in range(4)]
    assert allocator.reserved == 20 * MIB
    for block in (blocks[1], blocks[3], blocks[0], blocks[2]):
        allocator.give(block)
    allocator.take(20 * MIB)
    assert allocator.reserved == 20 * MIB


def test_a_gap_that_is_too_small_makes_the_allocator_take_more():
    allocator = CachingAllocator()
    blocks = [allocator.take(5 * MIB) for _ in range(4)]
    allocator.give(blocks[0])
    allocator.give(blocks[2])
    allocator.take(9 * MIB)  # 10 MiB are free, in two pieces
    assert allocator.reserved == 40 * MIB


def test_the_smallest_gap_that_is_large_enough_is_used():
    allocator = CachingAllocator()
    wide, tight = allocator.take(40 * MIB), allocator.take(30 * MIB)
    allocator.give(wide)
    allocator.give(tight)
    assert allocator.take(29 * MIB).start == tight.start


def test_events_are_replayed_in_order():
    events = [(0, 30 * MIB), (0, -30 * MIB), (1, 30 * MIB), (2, 30 * MIB), (3, 0)]
    assert replay(events) == 60 * MIB
