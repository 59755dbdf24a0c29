"""What a file can be made to do to its reader, each as a function of an open file, a place in it, and a secret.

The secret is another file of the user, which must not be opened. Each attack makes the file one that must be refused.
"""

from tests.serial.attacks import elements, groups, other_files, paths, storage  # noqa: F401
from tests.serial.attacks.registry import ANYWHERE, ON_FILES, ON_PATHS

__all__ = ["ANYWHERE", "ON_FILES", "ON_PATHS"]
