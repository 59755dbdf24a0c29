"""Attributes, groups, and what training looks for in them."""

from itertools import pairwise

import h5py
import numpy as np

from tests.serial.attacks.registry import anywhere, on_file

# -- attributes --------------------------------------------------------------------------------------


def _in(file, place):
    """A good data set in the place, to give attributes to."""
    return file.create_dataset(place, data=np.zeros(4), track_order=True).attrs


@anywhere
def attribute_of_references(file, place, secret):
    _in(file, place)["wrong"] = np.array([file.ref, file.ref], h5py.ref_dtype)


@anywhere
def attribute_of_records(file, place, secret):
    _in(file, place)["wrong"] = np.zeros(3, "f4,f4")


@anywhere
def attribute_of_variable_length(file, place, secret):
    values = np.empty(2, object)
    values[:] = [np.arange(3.0), np.arange(4.0)]
    _in(file, place).create("wrong", values, dtype=h5py.vlen_dtype("f8"))


@anywhere
def attribute_that_is_no_utf8(file, place, secret):
    _in(file, place).create("wrong", b"\xff\xfe", dtype=h5py.string_dtype())


@anywhere
def attribute_of_20_megabytes(file, place, secret):
    _in(file, place)["wrong"] = np.zeros(20 << 20, "u1")


@anywhere
def attribute_with_a_text_of_20_megabytes(file, place, secret):
    _in(file, place)["wrong"] = "a" * (20 << 20)


@anywhere
def attributes_without_end(file, place, secret):
    attributes = _in(file, place)
    for number in range(1001):
        attributes[f"a{number}"] = 1


@anywhere
def attribute_with_an_odd_name(file, place, secret):
    _in(file, place)["\x1b[2Jname\nname"] = 1


# -- groups ------------------------------------------------------------------------------------------


@on_file
def circle_of_one(file, place, secret):
    file["other/again"] = file.require_group("other")


@on_file
def circle_to_the_root(file, place, secret):
    file["other/again"] = file["/"]


@on_file
def circle_of_two(file, place, secret):
    one, two = file.create_group("one"), file.create_group("two")
    one["two"], two["one"] = two, one


@on_file
def group_of_two_names(file, place, secret):
    file["other"] = file["train"]


@on_file
def many_ways_to_one_end(file, place, secret):
    groups = [file.create_group(f"step{number}") for number in range(20)]
    for here, there in pairwise(groups):
        here["left"], here["right"] = there, there


@on_file
def deep_groups(file, place, secret):
    file.create_group("/".join("abcdefgh" * 5))


@on_file
def very_deep_groups(file, place, secret):
    file.create_group("a/" * 3000)


@on_file
def groups_without_end(file, place, secret):
    for number in range(10_000):
        file.create_group(f"other/{number}")


@on_file
def name_that_is_no_utf8(file, place, secret):
    file[b"\xff\xfe"] = 1.0


@on_file
def name_of_two_lines(file, place, secret):
    file["first\nlepton_mpi: second"] = 1.0


@on_file
def name_that_clears_the_screen(file, place, secret):
    file["\x1b[2J\x1b[31m"] = 1.0


@on_file
def name_without_end(file, place, secret):
    file["a" * 50_000] = 1.0


@on_file
def classes_that_clear_the_screen(file, place, secret):
    file.attrs["classes"] = ["\x1b[2J", "b", "c"]


@on_file
def classes_of_two_lines(file, place, secret):
    file.attrs["classes"] = ["a\nlepton_mpi: b", "b", "c"]


@on_file
def classes_that_are_one_text(file, place, secret):
    file.attrs["classes"] = "abc"


@on_file
def classes_that_are_numbers(file, place, secret):
    file.attrs["classes"] = [1, 2, 3]


@on_file
def too_few_classes(file, place, secret):
    file.attrs["classes"] = ["a"]


@on_file
def normalisation_is_a_data_set(file, place, secret):
    del file["normalisation"]
    file["normalisation"] = 1.0


@on_file
def normalisation_of_another_shape(file, place, secret):
    del file["normalisation/scale"]
    file.create_dataset("normalisation/scale", data=np.zeros(2_000_000, "u1"), compression="gzip")


@on_file
def normalisation_without_end(file, place, secret):
    del file["normalisation/scale"]
    file["normalisation/scale"] = np.array([1.0, np.inf, 1.0, 1.0])


@on_file
def training_is_a_data_set(file, place, secret):
    del file["train"]
    file["train"] = 1.0


@on_file
def no_training_rows(file, place, secret):
    del file["train"]
