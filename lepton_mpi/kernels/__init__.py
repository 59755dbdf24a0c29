"""Numba kernels that know no layer: vector code, tiles, matrix products, elementary functions, counter-based random numbers."""
