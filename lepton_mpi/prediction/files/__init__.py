"""Output files, one format a module; ``choosing.py`` takes the one that a suffix names.

What all of them do: the ranks turn the fields of a chunk into arrays to be sent (``packed``), rank 0 appends them in the order of the
chunks, and the file has a temporary name until all are there. Memory does not grow with the rows.
"""
