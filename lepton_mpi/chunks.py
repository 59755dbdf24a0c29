"""How a range is cut into parts: shares of ranks, chunks that a schedule moves, segments that a message carries. Pure."""


def chunk_bounds(count: int, chunk_count: int) -> list[int]:
    """Offsets of ``chunk_count`` chunks of ``count`` elements: chunk c is [bounds[c], bounds[c + 1]).

    Lengths differ by at most 1, longer chunks first; chunks are empty where ``count < chunk_count``.

    >>> chunk_bounds(10, 4)
    [0, 3, 6, 8, 10]
    """
    return [_bound(count, chunk_count, chunk) for chunk in range(chunk_count + 1)]


def share(start: int, stop: int, world_size: int, rank: int) -> tuple[int, int]:
    """This rank's part of [start, stop): the chunk of its number.

    A rank gets nothing, (x, x), where there are fewer elements than ranks.

    >>> [share(0, 5, 3, rank) for rank in range(3)]
    [(0, 2), (2, 4), (4, 5)]
    """
    count = max(0, stop - start)
    return start + _bound(count, world_size, rank), start + _bound(count, world_size, rank + 1)


def segments(start: int, stop: int, elements_max: int) -> list[tuple[int, int]]:
    """Cut [start, stop) into the fewest pieces of at most ``elements_max``, lengths differing by at most 1.

    Sender and receiver cut the same range, so they agree without a word. An empty range has no segment.

    >>> segments(10, 20, 4)
    [(10, 14), (14, 17), (17, 20)]
    """
    count = stop - start
    if count <= 0:
        return []
    bounds = chunk_bounds(count, -(-count // elements_max))
    return [(start + bounds[i], start + bounds[i + 1]) for i in range(len(bounds) - 1)]


def _bound(count: int, chunk_count: int, chunk: int) -> int:
    length, longer = divmod(count, chunk_count)
    return chunk * length + min(chunk, longer)
