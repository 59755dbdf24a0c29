"""The data file: what ``python -m lepton_mpi prepare`` writes, and what may stand in a file from elsewhere.

What training reads (``hdf5.py``; also from files of other programs, in the other two layouts it describes)::

    train/x, validation/x, test/x   (rows, *row shape): uint8 as the source has it, any integer or float
    train/inputs/NAME, …            beside x or in its place: inputs with names, (rows, *row shape), the same in every split
        attribute kind              numbers (also without the attribute), tokens or categories, which are whole numbers
        attribute values            of tokens and categories: how many there are, so codes run from 0 to values - 1; of
                                    categories also one such number for each element of a row
    train/y, validation/y, test/y   (rows,) uint8 or int32: the class of each row, from 0 up;
                                    for regression float32 or float64, (rows,) or (rows, targets)
    normalisation/shift, scale      float64, of the shape of one row or scalar: a value of x is read as (x - shift) * scale;
                                    without them, uint8 is divided by 255 and all else is taken as it is
    normalisation/inputs/NAME/…     shift and scale likewise of an input that is numbers
    normalisation/target_shift, target_scale, target_log
                                    float64, float64 and uint8 of shape (targets,): a target is trained on as
                                    (y - shift) * scale, where log is 1 as (log(1 + y) - shift) * scale; figures and
                                    predictions are scaled back. Absent: as they are
    attribute classes               names of the classes in the order of their numbers; absent for regression

A text may stand there in one piece instead (``prepare --stream``); a row is then a window of it, see ``data/windows.py``::

    train/tokens, validation/…      (tokens,) uint8, uint16 or int32, or any whole numbers: the ids of the tokens, each once
        attribute values            how many different tokens there are
        attribute context           tokens of a row, unless training asks for others
    train/document_starts, …        (documents,) whole numbers, ascending: tokens with which a document begins; may be absent
    vocabulary/bytes, ends          uint8 (bytes,), int64 (values,): token k stands for bytes[ends[k - 1]:ends[k]]; may be
                                    absent

A split without rows is absent. Of a file of ``prepare`` training then holds out none, since rows may depend on each other:
windows of a text overlap, groups belong together, balancing repeats rows. Files of ``prepare`` hold these besides, for people and for ``inspect``::

    attribute format                "lepton_mpi data"
    attribute format_version        1, or 2 where there are inputs with names, which readers of version 1 would not see,
                                    or a text in one piece; readers refuse a higher one than they know and open every lower one
    about/report                    JSON, UTF-8, as uint8: sources, options, counts of rows read, kept and dropped,
                                    classes per split, columns with kind, missing, filled and clipped cells
    about/encoding                  JSON, UTF-8, as uint8: all that prepare --like applies to other files: columns as read,
                                    categories, fills, classes, normalisation, tokens. A file with it may have rows for
                                    testing alone, to be scored, and these may all be without y. Every checkpoint has a copy.
                                    Of a text in BPE: tokenizer, the content of a tokenizer.json (data/tokenizer_facts.py)
    about/columns                   names of the features of a table; NAME=TEXT is 1 where column NAME holds that text
    about/categories/N              texts of feature N of a table, if it has codes; the text in place k has code k
    about/inputs/columns            names of the columns in train/inputs/categories (prepare --categories inputs)
    about/inputs/categories/N       texts of column N of them
    about/checksums/train/x, …      uint32 (blocks,): CRC-32 of every block of a data set in one piece, of as many rows as attribute rows
                                    says (block_sums.py); absent in files of versions before, which are read all the same
    about/vocabulary                texts of the tokens, in the order of their ids
    about/statistics/…              float64 (units,): count, mean, std, minimum and maximum of the training rows as
                                    stored; a unit is a feature, a channel or everything, see normalisation in the report

Storage is that of HDF5 1.10, which h5py 3.11 and later read. Data sets of rows are chunked by rows, about 1 MiB a
chunk, with Fletcher32, and with gzip and shuffle if asked for; or contiguous (``--layout contiguous``), which can be
mapped into memory and has checksums beside it. Nothing in the file depends on the time, the machine or the number of ranks
that wrote it. Texts are fixed-length UTF-8. There are no links, references, or data outside the file.
A file is written under a temporary name, synced and renamed: it is whole or not there.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lepton_mpi.errors import DataError
from lepton_mpi.wording import one_line

# What ``prepare --like`` reads of another file of ``prepare``.
ENCODING = "about/encoding"
# Names of the columns in train/inputs/categories.
CATEGORY_COLUMNS = "about/inputs/columns"
SPLITS = ("train", "validation", "test")
FORMAT, VERSION = "lepton_mpi data", 2


def is_prepared(attributes: Mapping[str, Any]) -> bool:
    """Whether a file says that ``prepare`` wrote it."""
    found = attributes.get("format")
    return isinstance(found, bytes | str) and found in (FORMAT, FORMAT.encode())


def check_version(attributes: Mapping[str, Any], path: Path) -> None:
    """Raise DataError for a file of a later version than this program knows; files without one are fine."""
    version = attributes.get("format_version", VERSION)
    try:
        known = int(version) <= VERSION
    except (TypeError, ValueError):
        known = False
    if not known:
        raise DataError(
            f"{path}: attribute format_version: expected {VERSION} or lower, got {one_line(version)}; "
            "a newer lepton_mpi reads it"
        )
