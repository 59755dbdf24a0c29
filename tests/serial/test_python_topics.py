"""The text that comes with Python: made once, whole, and again if it is gone."""

from itertools import pairwise
from pydoc_data.topics import topics

import h5py

from lepton_mpi.data.files import hdf5, python_topics
from lepton_mpi.kernels import cache


def test_the_text_of_pythons_topics_is_made_once(tmp_path, monkeypatch):
    """All topics are in one of three splits, as their characters; nothing else is left in the folder."""
    monkeypatch.setattr(cache, "folder", lambda: tmp_path / "kernels")
    (path,) = hdf5.locate_all(["python_topics"])
    made = path.stat().st_mtime_ns
    assert hdf5.locate("python_topics") == path and path.stat().st_mtime_ns == made
    assert list(path.parent.iterdir()) == [path]
    with h5py.File(path) as file:
        ends, text = file["vocabulary/ends"][()], file["vocabulary/bytes"][()].tobytes()
        starts = [0, *ends[:-1]]
        words = [text[a:b].decode() for a, b in zip(starts, ends, strict=True)]
        found = []
        for split in ("train", "validation", "test"):
            tokens = file[f"{split}/tokens"][()]
            bounds = [*file[f"{split}/document_starts"][()], len(tokens)]
            found += [
                "".join(words[token] for token in tokens[a:b]).strip() for a, b in pairwise(bounds)
            ]
    assert sorted(found) == sorted(topic.strip() for topic in topics.values())


def test_a_file_that_is_gone_is_made_anew_with_the_same_bytes(tmp_path, monkeypatch):
    monkeypatch.setattr(cache, "folder", lambda: tmp_path / "kernels")
    path = python_topics.locate()
    content = path.read_bytes()
    path.unlink()
    assert python_topics.locate().read_bytes() == content
