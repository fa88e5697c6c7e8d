"""A model of CUDA's caching allocator: what it takes from the device for a sequence of allocations and frees.

Sizes are rounded to 512 bytes. Up to 1 MiB comes out of segments of 2 MiB, up to 10 MiB out of 20 MiB, above in
multiples of 2 MiB; the smallest free block that is large enough is split, and neighbours that are free grow together
(torch's c10/cuda/CUDACachingAllocator.cpp, default settings). One stream; nothing is ever given back.
"""

import bisect
from dataclasses import dataclass

ROUND = 512
SMALL = 2**20
SMALL_SEGMENT = 2 * 2**20
MEDIUM = 10 * 2**20
MEDIUM_SEGMENT = 20 * 2**20


@dataclass(slots=True, eq=False)
class _Piece:
    """A part of a segment, with its neighbours."""

    number: int
    size: int
    is_small: bool
    is_free: bool = True
    before: "_Piece | None" = None
    after: "_Piece | None" = None


class CachingAllocator:
    """Reserved bytes, and their peak."""

    def __init__(self) -> None:
        self.reserved = self.peak_reserved = 0
        self._used: dict[int, _Piece] = {}
        self._free: dict[bool, list[tuple[int, int]]] = {True: [], False: []}
        self._pieces: dict[int, _Piece] = {}
        self._count = 0

    def allocate(self, key: int, size: int) -> None:
        """Give `key` a block of `size` bytes."""
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
        self.reserved += whole
        self.peak_reserved = max(self.peak_reserved, self.reserved)
        return self._new(whole, small)

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
