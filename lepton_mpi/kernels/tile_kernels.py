"""One tile of a matrix product in registers, as explicit vector instructions: what product_kernels.py is made of.

    for every k:  load the vectors of row k of b; for every row of the tile: broadcast a[row, k] and multiply-add

LLVM does not find this form in nested loops: it vectorises one of them and keeps no sums in registers.
Source: Goto and van de Geijn, "Anatomy of high-performance matrix multiplication", ACM TOMS 34(3), 2008.
"""

from typing import Any, NamedTuple

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from lepton_mpi.kernels.intrinsics import LINE_BYTES, emit_prefetch
from lepton_mpi.kernels.vector_code import VECTOR_BYTES, VectorCode, compiles_for

_word = ir.IntType(64)

# Rows and vectors of the largest tile: 16 sums of 64 bytes in 32 registers of that length, or with 16 registers of 32 bytes 6 of 64.
ROWS, VECTORS = (8, 2) if compiles_for("avx512f") else (6, 1)
ROW_COUNTS = tuple(count for count in (8, 6, 4, 2, 1) if count <= ROWS)


@intrinsic
def tile(
    typing_context,
    like,
    rows,
    columns,
    c,
    c_row,
    a,
    places,
    a_row,
    b,
    b_k,
    count,
    is_first,
    next_places,
):
    """A tile of ``c = a[places] @ b``, or ``c += …`` unless ``is_first``, of at most ROWS rows and VECTORS vectors.

    like : any array of the element type
    rows : one of ROW_COUNTS; columns : 1 or more
    c, a, places, b : addresses; places are int64; c_row, a_row, b_k : bytes from a row, or from a k, to the next
    count : numbers of k, 1 or more
    next_places : address of as many more, whose rows are asked for meanwhile, or 0
    """
    return _typed(like, _Tile, types.int64)


@intrinsic
def tile_left(
    typing_context, like, rows, columns, c, c_row, a, places, a_row, b, b_k, count, is_first
):
    """The same of ``c = a[places].T @ b``: k counts places, and the rows of c are columns of a."""
    return _typed(like, _TileLeft)


@intrinsic
def tile_shifted(
    typing_context, like, rows, columns, c, targets, a, places, shifts, b, b_k, count, is_first
):
    """The same of ``c[targets] = sum over k of a[places + shifts[k]] * b[k]``: a product over rows that are windows of a.

    c, targets, a, places, shifts, b : addresses; targets, places and shifts are int64, in elements of c and of a
    Source: Dukhan, "The indirect convolution algorithm", 2019, with one list of shifts for all rows in place of pointers.
    """
    return _typed(like, _TileShifted)


def _typed(like, kind_of_tile, *more):
    """What Numba asks of an intrinsic: its types, and who writes its code."""

    def generate(context, builder, signature, arguments):
        kind = signature.args[0].dtype
        _, rows, *rest = arguments
        scalar, width = context.get_data_type(kind), kind.bitwidth // 8
        code = kind_of_tile(builder, scalar, width, _Given(*rest))
        for known_rows in ROW_COUNTS:
            with builder.if_then(builder.icmp_signed("==", rows, _word(known_rows))):
                code.choose_columns(known_rows)
        return context.get_dummy_value()

    return types.none(like, *[types.int64] * 10, types.boolean, *more), generate


class _Given(NamedTuple):
    """Arguments of a tile, as values of LLVM. Of ``tile_shifted`` c_row are the targets, and a_row the shifts."""

    columns: Any
    c: Any
    c_row: Any
    a: Any
    places: Any
    a_row: Any
    b: Any
    b_k: Any
    count: Any
    is_first: Any
    next_places: Any = None


class _Tile(VectorCode):
    """Writes the loops of tiles."""

    def __init__(self, builder, scalar, width: int, given: _Given) -> None:
        super().__init__(builder, scalar, width)
        self.given = given

    def choose_columns(self, rows: int) -> None:
        """The loop for as many vectors as the columns need, the last of which may be short."""
        builder = self.builder
        for vectors in range(1, VECTORS + 1):
            lowest, highest = (vectors - 1) * self.lanes, vectors * self.lanes
            whole = builder.icmp_signed("==", self.given.columns, _word(highest))
            with builder.if_then(whole):
                self._loop(rows, vectors, None)
            above = builder.icmp_signed(">", self.given.columns, _word(lowest))
            below = builder.icmp_signed("<", self.given.columns, _word(highest))
            with builder.if_then(builder.and_(above, below)):
                rest = builder.sub(self.given.columns, _word(lowest))
                self._loop(rows, vectors, self.first_lanes(rest))

    def _loop(self, rows: int, vectors: int, mask) -> None:
        builder, zero = self.builder, self.zero
        masks = [None] * (vectors - 1) + [mask]
        targets = self._targets(rows, vectors)
        bases = self._bases(rows)
        before = builder.block
        body, after = (builder.append_basic_block(name) for name in ("tile", "tile_done"))
        builder.branch(body)
        builder.position_at_end(body)

        def entering(first):
            phi = builder.phi(first.type)
            phi.add_incoming(first, before)
            return phi

        k, b = entering(_word(0)), entering(self.given.b)
        sums = [[entering(zero) for _ in row] for row in targets]
        self._ask_for_next(k, rows)
        added = self._products(k, b, bases, sums, masks)
        end = builder.block
        following = (builder.add(k, _word(1)), builder.add(b, self.given.b_k))
        for phi, value in zip((k, b), following, strict=True):
            phi.add_incoming(value, end)
        for old_row, new_row in zip(sums, added, strict=True):
            for phi, value in zip(old_row, new_row, strict=True):
                phi.add_incoming(value, end)
        builder.cbranch(builder.icmp_signed("<", following[0], self.given.count), body, after)
        builder.position_at_end(after)
        self._put(targets, added, masks)

    def _targets(self, rows: int, vectors: int) -> list:
        """Addresses of the tile's vectors, row by row."""
        builder = self.builder
        return [
            [
                builder.add(
                    builder.add(self.given.c, builder.mul(self.given.c_row, _word(row))),
                    _word(VECTOR_BYTES * vector),
                )
                for vector in range(vectors)
            ]
            for row in range(rows)
        ]

    def _products(self, k, b, bases: list, sums: list, masks: list) -> list:
        """``sums``, each with the product of element k of its row and a vector of row k of the right matrix added."""
        builder, added = self.builder, []
        b_vectors = [
            self.load(builder.add(b, _word(VECTOR_BYTES * number)), m)
            for number, m in enumerate(masks)
        ]
        for row, address in enumerate(self._elements(bases, k, len(sums))):
            element = builder.load(
                builder.inttoptr(address, self.scalar.as_pointer()), align=self.width
            )
            left = self.splat(element)
            added.append(
                [
                    self.multiply_add(left, right, old)
                    for right, old in zip(b_vectors, sums[row], strict=True)
                ]
            )
        return added

    def _put(self, targets: list, added: list, masks: list) -> None:
        """The sums of the first part of a long product are stored, those of the others added to what is there."""
        builder = self.builder
        with builder.if_else(self.given.is_first) as (first, later):
            with first:
                self._store(targets, added, masks)
            with later:
                so_far = [
                    [self.load(address, m) for address, m in zip(row, masks, strict=True)]
                    for row in targets
                ]
                totals = [
                    [builder.fadd(old, value) for old, value in zip(*pair, strict=True)]
                    for pair in zip(so_far, added, strict=True)
                ]
                self._store(targets, totals, masks)

    def _store(self, targets: list, values: list, masks: list) -> None:
        for row, row_values in zip(targets, values, strict=True):
            for address, value, m in zip(row, row_values, masks, strict=True):
                self.store(value, address, m)

    def _bases(self, rows: int) -> list:
        """Addresses that are known before the loop: where the rows of a begin."""
        return [self._row_of_a(_word(row)) for row in range(rows)]

    def _elements(self, bases: list, k, rows: int) -> list:
        """Addresses of a's elements for one k, by row of the tile."""
        offset = self.builder.mul(k, _word(self.width))
        return [self.builder.add(base, offset) for base in bases]

    def _ask_for_next(self, k, rows: int) -> None:
        """At the beginning of a cache line of the rows, for the same line of the next rows."""
        builder, line = self.builder, LINE_BYTES // self.width
        is_line = builder.icmp_signed("==", builder.and_(k, _word(line - 1)), _word(0))
        is_any = builder.icmp_signed("!=", self.given.next_places, _word(0))
        with builder.if_then(builder.and_(is_line, is_any), likely=False):
            offset = builder.mul(k, _word(self.width))
            for row in range(rows):
                start = self._row_of_a(_word(row), self.given.next_places)
                emit_prefetch(builder, builder.add(start, offset))

    def _row_of_a(self, index, places=None):
        """Where the row of a begins that ``places`` has at ``index``."""
        given = self.given
        return self.row_of(given.a, places or given.places, index, given.a_row)


class _TileLeft(_Tile):
    """The same where a is transposed."""

    def _bases(self, rows: int) -> list:
        return []

    def _ask_for_next(self, k, rows: int) -> None:
        """The columns of a that come next are in the same cache lines, or the processor sees to it."""

    def _elements(self, bases: list, k, rows: int) -> list:
        row = self._row_of_a(k)
        return [self.builder.add(row, _word(self.width * number)) for number in range(rows)]


class _TileShifted(_Tile):
    """The same where the rows of a and c begin anywhere, and element k of a row is at a distance from its beginning."""

    def _targets(self, rows: int, vectors: int) -> list:
        builder, given, width = self.builder, self.given, _word(self.width)
        starts = [self.row_of(given.c, given.c_row, _word(row), width) for row in range(rows)]
        return [
            [builder.add(start, _word(VECTOR_BYTES * vector)) for vector in range(vectors)]
            for start in starts
        ]

    def _row_of_a(self, index, places=None):
        return self.row_of(self.given.a, places or self.given.places, index, _word(self.width))

    def _ask_for_next(self, k, rows: int) -> None:
        """A window's elements are in the nearest caches."""

    def _elements(self, bases: list, k, rows: int) -> list:
        shift = self.row_of(_word(0), self.given.a_row, k, _word(self.width))
        return [self.builder.add(base, shift) for base in bases]
