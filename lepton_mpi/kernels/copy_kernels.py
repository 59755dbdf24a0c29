"""A copy that looks, on its way, whether all numbers are finite."""

from lepton_mpi.kernels.compiling import inlined, kernel
from lepton_mpi.kernels.finite_kernels import not_finite
from lepton_mpi.kernels.intrinsics import LINE_BYTES, base_address, stream_fence, stream_line

# Looked at and then copied: it stays in the first-level cache in between.
_BLOCK_BYTES = 8 << 10


@kernel("i8(V,V)")
def copy_and_look(target, source):
    """Copy ``source``, shape (n,), to ``target``, with non-temporal stores, and return what ``not_finite`` does.

    Memory is read and written once, as by a copy alone: a look before it would read a vector that is larger than the caches twice.
    """
    found, width = 0, source.itemsize
    # Elements until the target is at a line.
    start = min(source.size, -base_address(target) % LINE_BYTES // width)
    stop = start + (source.size - start) // (LINE_BYTES // width) * (LINE_BYTES // width)
    _copy_plainly(target[:start], source[:start])
    _copy_plainly(target[stop:], source[stop:])
    found |= not_finite(source[:start]) | not_finite(source[stop:])
    block = _BLOCK_BYTES // width
    for first in range(start, stop, block):
        last = min(first + block, stop)
        found |= not_finite(source[first:last])
        from_address = base_address(source) + first * width
        to_address = base_address(target) + first * width
        for offset in range(0, (last - first) * width, LINE_BYTES):
            stream_line(source, from_address + offset, to_address + offset)
    stream_fence()
    return found


@inlined
def _copy_plainly(target, source):
    for i in range(source.size):
        target[i] = source[i]
