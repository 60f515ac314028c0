"""Nearkin: a streaming nearline recommender of similar items."""
