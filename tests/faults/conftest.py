"""What the tests of faults share: real parts in a folder of their own, and the encoder that they use."""

import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from faults.running_parts import Parts
from nearkin.core.ports import ContentEncoder
from nearkin.encoders.bundle import load_encoder


@pytest.fixture
def parts(tmp_path: Path) -> Iterator[Parts]:
    with Parts(tmp_path / "parts") as running:
        yield running


@pytest.fixture(scope="session")
def encoder() -> ContentEncoder:
    """The encoder of the default bundle, as the indexers have it."""
    return load_encoder(None, threads=1)


@pytest.fixture
def seed() -> int:
    """Of everything that a test draws; told where it fails, and taken from NEARKIN_TEST_SEED to repeat it."""
    drawn = int(os.environ.get("NEARKIN_TEST_SEED") or random.randrange(10**6))
    print(f"to draw the same again: NEARKIN_TEST_SEED={drawn}")
    return drawn
