"""What `nearkin priors` shows, of a real Redis."""

import asyncio
import json

import pytest

from nearkin.core.position_priors import Method, PositionPriors, Prior, SurfacePriors
from nearkin.embedded.programs import free_port
from nearkin.ops.settings import load_settings
from nearkin.stores.evidence import connect, rules_of
from stores.redis_process import RedisProcess

PRIORS = PositionPriors(
    1,
    1_700_000_000_000,
    {
        "page": SurfacePriors(Method.RANDOMISED, (Prior(0.2, 0.15, 0.25), Prior(0.05, 0.04, 0.0625)), 9_000, 700),
        "mail": SurfacePriors(Method.DEFAULT, (), 80, 1),
    },
)


@pytest.fixture
def published(nearkin, tmp_path, monkeypatch):
    """Runs the command beside a Redis in which priors may have been published."""
    with RedisProcess(tmp_path) as redis:
        monkeypatch.setenv("NEARKIN_REDIS_URL", redis.url)

        async def publish(priors: PositionPriors) -> None:
            settings = load_settings()
            store = connect(settings, rules_of(settings))
            assert await store.publish_priors(priors)
            await store.close()

        yield lambda *arguments, priors=PRIORS: (
            asyncio.run(publish(priors)) if priors else None,
            nearkin("priors", *arguments),
        )[1]


def test_each_surface_is_shown_with_its_method_and_intervals(published) -> None:
    said = published()
    assert said.exit_code == 0, said.output
    assert "version 1, learned 2023-11-14T22:13:20+00:00" in said.output
    page = said.output[said.output.index("page: from the randomised share") :]
    assert "9,000 exposures and 700 clicks" in page
    assert "0.1500 to 0.2500" in page
    assert "0.25 " in page, "the second position brings a quarter of the first"
    assert "mail: too few clicks: the default curve; 80 exposures and 1 clicks" in said.output


def test_one_surface_is_shown_alone_as_json(published) -> None:
    said = json.loads(published("page", "--json").output)
    assert said == {
        "version": 1,
        "learned_at": "2023-11-14T22:13:20+00:00",
        "surfaces": [
            {
                "surface": "page",
                "method": "randomised",
                "exposures": 9_000,
                "clicks": 700,
                "positions": [
                    {"position": 1, "prior": 0.2, "low": 0.15, "high": 0.25},
                    {"position": 2, "prior": 0.05, "low": 0.04, "high": 0.0625},
                ],
            }
        ],
    }


def test_before_anything_is_learned_the_default_is_shown(published) -> None:
    said = published("page", priors=None)
    assert said.exit_code == 0
    assert "version 0: the default for every surface" in said.output
    assert "0.1000" in said.output
    found = json.loads(published("page", "--json", priors=None).output)
    assert (found["learned_at"], found["surfaces"][0]["method"]) == (None, "default")
    assert [one["low"] for one in found["surfaces"][0]["positions"]] == [None] * 10


def test_without_a_redis_it_says_which_one_was_asked(nearkin, monkeypatch) -> None:
    monkeypatch.setenv("NEARKIN_REDIS_URL", f"redis://127.0.0.1:{free_port()}/0")
    said = nearkin("priors")
    assert said.exit_code == 3
    assert "the evidence is unavailable" in said.output
    assert "NEARKIN_REDIS_URL" in said.output
