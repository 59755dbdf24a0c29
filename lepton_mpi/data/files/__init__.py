"""What reads HDF5: which files are trusted, where their rows lie, how blocks are read, checked and unpacked."""
