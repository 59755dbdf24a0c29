"""How vectors are cut."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from lepton_mpi.chunks import chunk_bounds, segments


@given(st.integers(0, 10_000), st.integers(1, 300))
def test_chunks_cover_without_overlap_and_differ_by_one(count, chunk_count):
    """Chunks follow each other from 0 to the end, their lengths differ by at most 1, longer ones first."""
    bounds = chunk_bounds(count, chunk_count)
    lengths = [stop - start for start, stop in pairwise(bounds)]
    assert bounds[0] == 0 and bounds[-1] == count and len(lengths) == chunk_count
    assert lengths == sorted(lengths, reverse=True) and lengths[0] - lengths[-1] <= 1


@given(st.integers(0, 10_000), st.integers(-3, 500), st.integers(1, 600))
def test_segments_cover_a_range_in_the_fewest_pieces(start, length, elements_max):
    """Segments cover the range in order, none above the limit or empty, as few as possible and nearly equal."""
    pieces = segments(start, start + length, elements_max)
    assert len(pieces) == max(0, -(-length // elements_max))
    if pieces:
        assert pieces[0][0] == start and pieces[-1][1] == start + length
        assert all(left[1] == right[0] for left, right in pairwise(pieces))
        lengths = [stop - start for start, stop in pieces]
        assert (
            min(lengths) > 0 and max(lengths) <= elements_max and max(lengths) - min(lengths) <= 1
        )
