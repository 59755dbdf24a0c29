"""Numbers of bytes, as people write and read them: powers of 1024."""

import argparse
import re


def parse_size(text: str) -> int:
    """Bytes; raises what ``argparse`` shows to the user.

    >>> [parse_size(text) for text in ("8", "4K", "64M", "1GiB")]
    [8, 4096, 67108864, 1073741824]
    """
    match = re.fullmatch(r"(\d+)([KMG]?)(?:i?B)?", text)
    if not match:
        raise argparse.ArgumentTypeError(f"expected a size such as 8, 4K or 64M, got {text!r}")
    return int(match[1]) << 10 * "_KMG".index(match[2] or "_")


def size_text(byte_count: int) -> str:
    """Three digits and a unit.

    >>> [size_text(count) for count in (24, 4096, 12288, 40000, 64 << 20)]
    ['24 B', '4 KiB', '12 KiB', '39.1 KiB', '64 MiB']
    """
    for power, unit in ((30, "GiB"), (20, "MiB"), (10, "KiB")):
        if byte_count >= 1 << power:
            return f"{byte_count / (1 << power):.3g} {unit}"
    return f"{byte_count} B"
