"""How kernels are compiled."""


def signatures(pattern: str) -> list[str]:
    """``pattern`` for float32 and for float64: F is the scalar, V the vector, M the matrix."""
    return [
        pattern.replace("M", f"{kind}[:,::1]").replace("V", f"{kind}[::1]").replace("F", kind)
        for kind in ("f4", "f8")
    ]
