"""Parts from outside of the package, a file each: what a user writes, at most 40 lines."""
