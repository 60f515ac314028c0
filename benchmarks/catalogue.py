"""The catalogue varied to any size: real descriptions first, then honest variants of them."""

import random
import re
from collections import Counter
from collections.abc import Iterator

import msgspec

from nearkin.embedded.catalogue.online_retail import CatalogueItem, load_catalogue

#: A word that says how an item looks is one of at least so many words that stand in the same place.
LEAST_CHOICES = 3


def vary_catalogue(count: int, seed: int = 0) -> list[CatalogueItem]:
    """The catalogue, then variants of its items, to `count` items with unique ids and unique texts.

    A variant is a real description with one or two words exchanged for words of the same kind, as a shop's own next
    item would have: "PINK POLKADOT CUP" from "BLUE POLKADOT CUP". Words are of the same kind where the catalogue itself
    holds at least three descriptions that differ in that one word alone (colours, animals, sizes, letters); one in
    three variants exchanges instead the opening two words, the series, for another description's. Lengths and word
    frequencies so stay close to the real ones; near-duplicates are commoner than in a real catalogue of that size,
    which makes search harder, not easier. Price, first sale and markets are those of the item varied. Items that have
    the same description count once in the texts, so the first of them is kept.
    """
    rng = random.Random(seed)
    items: list[CatalogueItem] = []
    seen: set[str] = set()
    for item in load_catalogue():
        if item.title not in seen and len(items) < count:
            seen.add(item.title)
            items.append(item)
    exchanges = _find_exchanges([item.title for item in items])
    originals = tuple(items)
    variants = _endless_variants(originals, exchanges, rng)
    while len(items) < count:
        title, item = next(variants)
        if title not in seen:
            seen.add(title)
            items.append(msgspec.structs.replace(item, id=f"v{len(items):07d}", title=title))
    return items


def _find_exchanges(titles: list[str]) -> dict[str, tuple[str, ...]]:
    """For each word that stands in an exchangeable place somewhere, the words it may be exchanged for."""
    places: dict[tuple[str, str], set[str]] = {}
    for title in titles:
        words = title.split()
        for position, word in enumerate(words):
            if len(words) > 1 and re.fullmatch(r"[A-Z]+", word):
                places.setdefault((" ".join(words[:position]), " ".join(words[position + 1 :])), set()).add(word)
    partners: dict[str, Counter[str]] = {}
    for choices in places.values():
        if len(choices) >= LEAST_CHOICES:
            for word in choices:
                partners.setdefault(word, Counter()).update(choices - {word})
    return {word: tuple(sorted(counts)) for word, counts in sorted(partners.items())}


def _endless_variants(
    originals: tuple[CatalogueItem, ...], exchanges: dict[str, tuple[str, ...]], rng: random.Random
) -> Iterator[tuple[str, CatalogueItem]]:
    while True:
        item = rng.choice(originals)
        words = item.title.split()
        if rng.random() < 1 / 3 and len(words) > 2:
            words[:2] = rng.choice(originals).title.split()[:2]
        places = [position for position, word in enumerate(words) if word in exchanges]
        for position in rng.sample(places, min(len(places), rng.choice((1, 2)))):
            words[position] = rng.choice(exchanges[words[position]])
        yield " ".join(words), item
