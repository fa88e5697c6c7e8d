"""A model of CUDA's caching allocator: what it takes from the device for a sequence of allocations and frees.

Sizes are rounded to 512 bytes. Up to 1 MiB comes out of segments of 2 MiB, up to 10 MiB out of 20 MiB, above in
multiples of 2 MiB; the smallest free block that is large enough is split, and neighbours that are free grow together.
What the device cannot give is asked for again once every segment that is free as a whole has been given back: a retry
(torch's c10/cuda/CUDACachingAllocator.cpp, default settings). One stream.
"""

import bisect
import math
from collections.abc import Sequence
from dataclasses import dataclass

ROUND = 512
SMALL = 2**20
SMALL_SEGMENT = 2 * 2**20
MEDIUM = 10 * 2**20
MEDIUM_SEGMENT = 20 * 2**20


class Exhausted(Exception):
    """Not even after a retry is there room."""


@dataclass(slots=True, eq=False)
class _Piece:
    """A part of a segment, with its neighbours."""

    number: int
    size: int
    is_small: bool
    is_free: bool = True
    before: "_Piece | None" = None
    after: "_Piece | None" = None

    @property
    def is_whole(self) -> bool:
        """Whether it is its segment."""
        return self.before is None and self.after is None


class CachingAllocator:
    """Reserved bytes, their peak, and how often it took a retry to get some. `capacity`: bytes that the device has."""

    def __init__(self, capacity: float = math.inf) -> None:
        self.capacity = capacity
        self.reserved = self.peak_reserved = self.num_retries = 0
        self._used: dict[int, _Piece] = {}
        self._free: dict[bool, list[tuple[int, int]]] = {True: [], False: []}
        self._pieces: dict[int, _Piece] = {}
        self._count = 0

    def allocate(self, key: int, size: int) -> None:
        """Give `key` a block of `size` bytes.

        Raises:
            Exhausted: the device has no room for it.
        """
        size = -(-size // ROUND) * ROUND
        small = size <= SMALL
        piece = self._find(size, small) or self._segment(size, small)
        self._split(piece, size)
        piece.is_free = False
        self._used[key] = piece

    def free(self, key: int) -> None:
        """Take the block of `key` back."""
        piece = self._used.pop(key)
        piece.is_free = True
        for other in (piece.before, piece.after):
            if other is not None and other.is_free:
                piece = self._join(piece, other)
        self._put(piece)

    def _find(self, size: int, small: bool) -> _Piece | None:
        free = self._free[small]
        place = bisect.bisect_left(free, (size, 0))
        if place == len(free):
            return None
        return self._pieces[free.pop(place)[1]]

    def _segment(self, size: int, small: bool) -> _Piece:
        whole = (
            SMALL_SEGMENT if small else MEDIUM_SEGMENT if size < MEDIUM else -(-size // SMALL_SEGMENT) * SMALL_SEGMENT
        )
        if self.reserved + whole > self.capacity:
            self.num_retries += 1
            self._give_back()
            if self.reserved + whole > self.capacity:
                raise Exhausted(f"{whole} bytes, of which {self.capacity - self.reserved:.0f} are there")
        self.reserved += whole
        self.peak_reserved = max(self.peak_reserved, self.reserved)
        return self._new(whole, small)

    def _give_back(self) -> None:
        """Every segment that is free as a whole."""
        for free in self._free.values():
            whole = [number for _, number in free if self._pieces[number].is_whole]
            self.reserved -= sum(self._pieces.pop(number).size for number in whole)
            free[:] = [entry for entry in free if entry[1] in self._pieces]

    def _new(self, size: int, small: bool) -> _Piece:
        self._count += 1
        piece = _Piece(number=self._count, size=size, is_small=small)
        self._pieces[piece.number] = piece
        return piece

    def _split(self, piece: _Piece, size: int) -> None:
        left = piece.size - size
        if left < ROUND or (not piece.is_small and left <= SMALL):
            return
        rest = self._new(left, piece.is_small)
        rest.before, rest.after = piece, piece.after
        if piece.after is not None:
            piece.after.before = rest
        piece.size, piece.after = size, rest
        self._put(rest)

    def _put(self, piece: _Piece) -> None:
        bisect.insort(self._free[piece.is_small], (piece.size, piece.number))

    def _join(self, piece: _Piece, other: _Piece) -> _Piece:
        """`piece`, in no list, and its free neighbour as one."""
        free = self._free[other.is_small]
        free.pop(bisect.bisect_left(free, (other.size, other.number)))
        first, second = (other, piece) if piece.before is other else (piece, other)
        first.size += second.size
        first.after = second.after
        if second.after is not None:
            second.after.before = first
        del self._pieces[second.number]
        return first


# --- a step that comes again


Event = tuple[int, int]
"""A key and the bytes that it takes; 0: it lets go of them."""

NUM_STEPS = 4
"""The first is without what it leaves behind, the second makes its blocks beside that; later ones find them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Steps:
    """What a process allocates that makes the same step again and again."""

    held: Sequence[Event]
    """Before the first step."""
    step: Sequence[Event]
    """Of each step. What it has not let go of at its end (gradients) goes as the next one begins."""
    left: Sequence[int] = ()
    """Bytes of each block that the first step leaves for good: the optimizer's state."""

    def replay(self, capacity: float = math.inf) -> CachingAllocator:
        """The allocator after these steps.

        Raises:
            Exhausted: they do not fit.
        """
        allocator, blocks = CachingAllocator(capacity), _Blocks()
        blocks.change(allocator, self.held)
        held = set(blocks.of)
        for number in range(NUM_STEPS):
            blocks.change(allocator, [(key, 0) for key in blocks.of if key not in held])
            blocks.change(allocator, self.step)
            for size in self.left if number == 0 else ():
                allocator.allocate(blocks.new(), size)
        return allocator

    def least_bytes(self) -> int:
        """The least that the device must have for them, retries and all: to a thousandth, from above."""
        enough = self.replay().peak_reserved
        short, nearest = 0, enough / 1000
        while enough - short > nearest:
            middle = (short + enough) // 2
            short, enough = (short, middle) if self._fit(middle) else (middle, enough)
        return enough

    def _fit(self, capacity: int) -> bool:
        try:
            self.replay(capacity)
        except Exhausted:
            return False
        return True


class _Blocks:
    """Which block of the allocator each key has."""

    def __init__(self) -> None:
        self.of: dict[int, int] = {}
        self._count = 0

    def new(self) -> int:
        """The name of another block."""
        self._count += 1
        return self._count

    def change(self, allocator: CachingAllocator, events: Sequence[Event]) -> None:
        """Allocate and free in this order."""
        for key, size in events:
            if size:
                self.of[key] = self.new()
                allocator.allocate(self.of[key], size)
            elif key in self.of:
                allocator.free(self.of.pop(key))
