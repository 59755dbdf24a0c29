"""Data that lie in other files: links, external storage, virtual data sets."""

import h5py
from h5py import h5p, h5s, h5t

from tests.serial.attacks.registry import SECRET_SHAPE, anywhere, low_level


@anywhere
def external(file, place, secret):
    file.create_dataset(place, (40, 4), "f8", external=[(str(secret), 0, 1280)])


@anywhere
def external_in_pieces(file, place, secret):
    file.create_dataset(
        place, (40,), "i8", external=[(str(secret), 64, 160), ("/etc/passwd", 0, 160)]
    )


@anywhere
def external_without_end(file, place, secret):
    file.create_dataset(
        place, (40,), "i8", maxshape=(None,), external=[(str(secret), 0, h5py.h5f.UNLIMITED)]
    )


@anywhere
def external_device(file, place, secret):
    file.create_dataset(place, (40,), "i8", external=[("/dev/zero", 0, 320)])


@anywhere
def external_link(file, place, secret):
    file[place] = h5py.ExternalLink(str(secret), "x")


@anywhere
def external_link_to_nothing(file, place, secret):
    file[place] = h5py.ExternalLink("none.h5", "x")


@anywhere
def soft_link(file, place, secret):
    file[place] = h5py.SoftLink("/test/x")


@anywhere
def soft_link_to_nothing(file, place, secret):
    file[place] = h5py.SoftLink("/nowhere")


@anywhere
def soft_link_to_itself(file, place, secret):
    file[place] = h5py.SoftLink("/" + place)


@anywhere
def virtual(file, place, secret):
    layout = h5py.VirtualLayout(SECRET_SHAPE, "f8")
    layout[:] = h5py.VirtualSource(str(secret), "x", SECRET_SHAPE)
    file.create_virtual_dataset(place, layout)


@anywhere
def virtual_without_end(file, place, secret):
    layout = h5py.VirtualLayout(SECRET_SHAPE, "f8", maxshape=(None, 4))
    source = h5py.VirtualSource(str(secret), "x", SECRET_SHAPE, maxshape=(None, 4))
    layout[: h5s.UNLIMITED] = source[: h5s.UNLIMITED]
    file.create_virtual_dataset(place, layout)


@anywhere
def virtual_by_pattern(file, place, secret):
    space, block = h5s.create_simple((1, 4), (h5s.UNLIMITED, 4)), h5s.create_simple((1, 4))
    space.select_hyperslab((0, 0), (h5s.UNLIMITED, 1), (1, 4), (1, 4))
    made = h5p.create(h5p.DATASET_CREATE)
    made.set_virtual(space, str(secret.with_name("secret%b.h5")).encode(), b"x", block)
    low_level(file, place, h5t.IEEE_F64LE, space, made)


@anywhere
def virtual_of_itself(file, place, secret):
    layout = h5py.VirtualLayout((40,), "i8")
    layout[:] = h5py.VirtualSource(".", "/" + place, (40,))
    file.create_virtual_dataset(place, layout)
