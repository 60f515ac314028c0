"""What every test may ask for."""

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# A busy machine is slow, not wrong.
settings.register_profile("nearkin", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("nearkin")


@pytest.fixture(scope="session")
def evaluation_data() -> Path:
    """The folder of data sets that the project does not ship: NEARKIN_DATA, or shared/data beside the checkout."""
    folder = Path(os.environ.get("NEARKIN_DATA") or Path(__file__).parents[2] / "shared" / "data")
    if folder.is_dir():
        return folder
    message = f"no evaluation data at {folder}: set NEARKIN_DATA to the folder that holds it"
    if os.environ.get("NEARKIN_REQUIRE_DATA"):
        pytest.fail(message)
    pytest.skip(message)
