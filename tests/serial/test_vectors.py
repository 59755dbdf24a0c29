"""Flat vectors with named views."""

import copy
import itertools
import pickle
from math import prod

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lepton_mpi.vectors import Layout

shapes = st.lists(st.lists(st.integers(0, 5), max_size=3).map(tuple), max_size=8).map(
    lambda found: {f"p{index}": shape for index, shape in enumerate(found)}
)
SHAPES = {"w": (2, 3), "b": (3,), "scale": (), "none": (0, 4)}


@given(shapes)
def test_views_cover_the_vector_in_order(shapes):
    """Writing its own numbers through each view numbers the whole vector once, in the order of the names."""
    layout = Layout(shapes)
    vector = np.full(layout.size, -1)
    count = 0
    for name, view in layout.views(vector).items():
        assert view.shape == shapes[name]
        view[...] = np.arange(count, count + view.size).reshape(view.shape)
        count += view.size
    np.testing.assert_array_equal(vector, np.arange(layout.size))
    assert count == layout.size == sum(prod(shape) for shape in shapes.values())
    assert [stop - start for start, stop in layout.bounds] == [
        prod(shape) for shape in shapes.values()
    ]


@given(shapes, st.integers(1, 60))
def test_buckets_hold_every_parameter_once_from_the_end(shapes, elements_max):
    """Buckets follow each other from the vector's end to its start, none is empty or above the limit, and they hold whole
    parameters but for those that are above it, which are cut into as few parts as can be, of nearly the same length."""
    layout = Layout(shapes)
    buckets = layout.buckets(elements_max)
    edges = {edge for bound in layout.bounds for edge in bound}
    for start, stop in layout.bounds:
        inside = [edge for bucket in buckets for edge in bucket if start < edge < stop]
        cuts = sorted({start, *inside, stop})
        if stop - start > elements_max:
            lengths = [after - before for before, after in itertools.pairwise(cuts)]
            assert len(lengths) <= -(-(stop - start) // elements_max)
            edges |= set(cuts)
    if layout.size:
        assert buckets[0][1] == layout.size and buckets[-1][0] == 0
    else:
        assert buckets == []
    assert all(later[1] == earlier[0] for earlier, later in itertools.pairwise(buckets))
    for start, stop in buckets:
        assert 0 < stop - start <= elements_max and {start, stop} <= edges


@given(shapes, st.integers(1, 60))
def test_buckets_are_as_few_as_their_order_allows(shapes, elements_max):
    """No bucket could take in the parameter before it, if that is not cut."""
    layout = Layout(shapes)
    filled = {stop: start for start, stop in layout.bounds if start < stop}
    for start, stop in layout.buckets(elements_max)[:-1]:
        assert stop - filled.get(start, 0) > elements_max or start not in filled


def test_a_name_keeps_its_array():
    """Kernels hold addresses: another array is refused, the same one is not, and a copy is a plain dict."""
    vector = np.zeros(10)
    views = Layout(SHAPES).views(vector)
    views["b"] += 1
    views["w"] -= 2
    assert vector.tolist() == [-2] * 6 + [1] * 3 + [0]
    with pytest.raises(TypeError, match=r"views\['b'\] cannot be another array: fill it"):
        views["b"] = np.zeros(3)
    for made in (copy.copy(views), copy.deepcopy(views), pickle.loads(pickle.dumps(views))):
        assert type(made) is dict
        made["b"] = None
    assert vector.tolist() == [-2] * 6 + [1] * 3 + [0]


def test_vectors_of_another_length_are_refused():
    """``views`` says which shape it expected and which came."""
    with pytest.raises(ValueError, match=r"shape \(10,\), got \(9,\)"):
        Layout(SHAPES).views(np.zeros(9))
    with pytest.raises(ValueError, match="got"):
        Layout(SHAPES).views(np.zeros((10, 1)))


@given(st.integers(0, 9), st.integers(0, 31))
def test_the_digest_changes_with_every_bit(element, bit):
    """One flipped bit of one element gives another digest; flipping it back gives the first one."""
    layout, vector = Layout(SHAPES), np.arange(10, dtype=np.float32)
    before = layout.digest(vector)
    bits = vector.view(np.uint32)
    bits[element] ^= np.uint32(1 << bit)
    assert layout.digest(vector) != before
    bits[element] ^= np.uint32(1 << bit)
    assert layout.digest(vector) == before


def test_the_digest_changes_with_names_shapes_order_and_type():
    """The same bytes under another name, shape, order of names or type have another digest."""
    vector = np.zeros(6, np.float32)
    layouts = [
        {"a": (6,)},
        {"b": (6,)},
        {"a": (2, 3)},
        {"a": (3,), "b": (3,)},
        {"b": (3,), "a": (3,)},
    ]
    digests = [Layout(shapes).digest(vector) for shapes in layouts]
    digests.append(Layout(layouts[0]).digest(vector.astype(np.float64)))
    digests.append(Layout({"a": (3,)}).digest(np.zeros(3)))  # the same bytes as the first
    assert len(set(digests)) == len(digests)


def test_the_digest_never_changes_between_versions():
    """A frozen value, since checkpoints carry digests; the byte order of the machine does not matter."""
    layout, vector = Layout({"w": (2, 2), "b": (1,)}), np.arange(5, dtype=np.float32)
    assert (
        layout.digest(vector)
        == layout.digest(vector.astype(">f4"))
        == "0aeface599184e29dd35ac58fb8a945b"
    )


@pytest.mark.parametrize(
    "shape", [(np.int64(2), np.int32(3)), [2, 3]], ids=["NumPy numbers", "list"]
)
def test_equal_shapes_have_equal_digests_however_they_are_written(shape):
    """A model may give shapes as lists or with NumPy's integers; what a checkpoint reads back are tuples of int."""
    vector = np.zeros(6, np.float32)
    assert Layout({"w": shape}).digest(vector) == Layout({"w": (2, 3)}).digest(vector)
