"""The former name of `core/vectors.py`."""

from nearkin.core.vectors import Hit, SparseVector, VectorName, Vectors

__all__ = ["Hit", "SparseVector", "VectorName", "Vectors"]
