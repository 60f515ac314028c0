"""Nearkin: a streaming nearline recommender of similar items."""

from importlib.metadata import version

__version__ = version("nearkin")
