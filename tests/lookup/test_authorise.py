import asyncio
import hashlib
import json
import logging
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from live_lookups import LiveLookups, live_lookups
from nearkin.client.lookup import BlockingLookupClient, LookupClient
from nearkin.core import item
from nearkin.core.errors import Misconfigured
from nearkin.core.filters import ItemFilter
from nearkin.core.item import Content
from nearkin.core.probe import PROBE_MARKET
from nearkin.lookup import authorise
from nearkin.lookup.authorise import TokenFile, read_tokens

MUGS = [item.upserted(f"mug-{n}", Content(title=f"red mug number {n}"), 1) for n in range(3)]

SHOP, BATCHES, MONITOR, OPERATOR = "s3cret-shop", "s3cret-batches", "s3cret-monitor", "s3cret-operator"

RIGHTS: dict[str, Sequence[str]] = {
    SHOP: ["FindSimilar", "FindSimilarBatch"],
    BATCHES: ["FindSimilarBatch"],
    MONITOR: ["FindSimilar", "GetItems", "probes"],
    OPERATOR: ["*"],
}


def write(path: Path, rights: dict[str, Sequence[str]]) -> Path:
    tokens = [
        {"name": token.removeprefix("s3cret-"), "sha256": hashlib.sha256(token.encode()).hexdigest(), "rights": some}
        for token, some in rights.items()
    ]
    path.write_text(json.dumps({"tokens": tokens}))
    return path


@pytest.fixture
def tokens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(authorise, "LOOK_EVERY_S", 0.0)
    return write(tmp_path / "tokens.json", RIGHTS)


@pytest.fixture
async def live(tokens: Path) -> AsyncIterator[LiveLookups]:
    async with live_lookups(tokens=TokenFile(tokens)) as live:
        await live.publish(*MUGS)
        yield live


async def refusal(live: LiveLookups, token: str, method: str = "similar", market: str = "") -> str:
    """Why a call is refused; empty where it is answered."""
    async with LookupClient(live.address, token=token) as lookups:
        try:
            if method == "similar":
                await lookups.similar(item_id="mug-1", filter=ItemFilter(market=market))
            elif method == "similar_many":
                await lookups.similar_many(["mug-1"], filter=ItemFilter(market=market))
            else:
                await lookups.items(["mug-1"])
        except Misconfigured as error:
            return error.reason if error.field == "token" else str(error)
    return ""


async def test_a_token_opens_the_methods_that_its_rights_name_and_no_others(live: LiveLookups) -> None:
    opened = {
        token: [await refusal(live, token, method) for method in ("similar", "similar_many", "items")]
        for token in RIGHTS
    }

    denied = "permission_denied"
    assert opened == {
        SHOP: ["", "", denied],
        BATCHES: [denied, "", denied],
        MONITOR: ["", denied, ""],
        OPERATOR: ["", "", ""],
    }


@pytest.mark.parametrize("token", ["", "unknown", "S3CRET-SHOP", SHOP[:-1], SHOP + "x"])
async def test_without_a_known_token_nothing_is_answered(live: LiveLookups, token: str) -> None:
    assert await refusal(live, token) == "unauthenticated"


async def test_what_the_monitor_looks_for_takes_a_right_of_its_own(live: LiveLookups) -> None:
    markets = [await refusal(live, token, market=PROBE_MARKET) for token in (SHOP, MONITOR, OPERATOR)]

    assert markets == ["permission_denied", "", ""]
    assert await refusal(live, BATCHES, "similar_many", PROBE_MARKET) == "permission_denied"
    assert await refusal(live, BATCHES, "similar_many", "GB") == ""


async def test_a_refusal_says_what_to_do_and_never_the_token(
    live: LiveLookups, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG):
        async with LookupClient(live.address, token="s3cret-unknown") as lookups:
            with pytest.raises(Misconfigured, match=r"authorization: Bearer TOKEN") as unknown:
                await lookups.similar(item_id="mug-1")
        async with LookupClient(live.address, token=BATCHES) as lookups:
            with pytest.raises(Misconfigured, match=r"the token of batches may not call FindSimilar; ask") as denied:
                await lookups.similar(item_id="mug-1")

    assert "a call was refused" in caplog.text
    assert "s3cret" not in str(unknown.value) + str(denied.value)
    assert not [record for record in caplog.records if "s3cret" in f"{record.getMessage()} {vars(record)}"]


async def test_refused_calls_are_counted_by_their_status(live: LiveLookups) -> None:
    await refusal(live, "unknown")
    await refusal(live, BATCHES)

    counted = live.metrics.registry.get_sample_value
    for code in ("UNAUTHENTICATED", "PERMISSION_DENIED"):
        assert counted("nearkin_lookups_total", {"method": "FindSimilar", "code": code}) == 1


async def test_health_is_told_to_everybody_and_the_services_to_whoever_has_a_token(live: LiveLookups) -> None:
    async with grpc.aio.insecure_channel(live.address) as channel:
        health = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=10)
        assert health.status == health_pb2.HealthCheckResponse.SERVING

        async def services(token: str) -> list[str]:
            asked = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo(
                iter([reflection_pb2.ServerReflectionRequest(list_services="")]),
                metadata=[("authorization", f"Bearer {token}")],
                timeout=10,
            )
            return [one.name async for answer in asked for one in answer.list_services_response.service]

        assert "nearkin.contracts.v1.LookupService" in await services(BATCHES)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await services("unknown")
        assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED


async def test_what_is_no_method_is_not_implemented(live: LiveLookups) -> None:
    async with grpc.aio.insecure_channel(live.address) as channel:
        call = channel.unary_unary("/nearkin.contracts.v1.LookupService/Drop")
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await call(b"", metadata=[("authorization", f"Bearer {OPERATOR}")], timeout=10)
    assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_tokens_are_exchanged_without_a_restart(live: LiveLookups, tokens: Path) -> None:
    assert await refusal(live, SHOP) == ""

    write(tokens, {"s3cret-next": ["FindSimilar"]})

    assert await refusal(live, SHOP) == "unauthenticated"
    assert await refusal(live, "s3cret-next") == ""


async def test_a_file_that_is_half_written_changes_nothing_and_is_told(
    live: LiveLookups, tokens: Path, caplog: pytest.LogCaptureFixture
) -> None:
    await asyncio.to_thread(tokens.write_text, '{"tokens": [')

    with caplog.at_level(logging.ERROR):
        assert await refusal(live, SHOP) == ""
        assert await refusal(live, "unknown") == "unauthenticated"
    assert "the tokens have changed and cannot be used" in caplog.text


async def test_a_client_shows_the_token_of_now(live: LiveLookups) -> None:
    shown = ["unknown", SHOP]
    async with LookupClient(live.address, token=lambda: shown.pop(0)) as lookups:
        with pytest.raises(Misconfigured):
            await lookups.similar(item_id="mug-1")
        assert (await lookups.similar(item_id="mug-1")).neighbours


@pytest.mark.parametrize("token", ["s3cret\n", "s3crét", "two s3crets"])
def test_a_token_that_cannot_be_sent_is_refused_and_not_shown(token: str) -> None:
    with (
        BlockingLookupClient("127.0.0.1:1", token=token) as lookups,
        pytest.raises(Misconfigured, match="token") as refused,
    ):
        lookups.similar(item_id="mug-1")
    assert "s3cr" not in str(refused.value)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "truncated"),
        ("[]", "Expected `object`"),
        ('{"tokens": [{"name": "shop", "sha256": "s3cret", "rights": []}]}', "regex"),
        ('{"tokens": [{"name": "", "sha256": "%(a)s", "rights": []}]}', "length"),
        ('{"tokens": [{"name": "shop", "sha256": "%(a)s", "rights": ["Drop"]}]}', "shop has rights that are none"),
        ('{"tokens": [{"name": "shop", "token": "s3cret", "sha256": "%(a)s", "rights": []}]}', "unknown field `token`"),
        (
            '{"tokens": [{"name":"a","sha256":"%(a)s","rights":[]}, {"name":"a","sha256":"%(b)s","rights":[]}]}',
            "the same name",
        ),
        (
            '{"tokens": [{"name":"a","sha256":"%(a)s","rights":[]}, {"name":"b","sha256":"%(a)s","rights":[]}]}',
            "the same sha256",
        ),
    ],
)
def test_a_file_that_is_not_as_it_must_be_is_refused_and_not_quoted(tmp_path: Path, text: str, problem: str) -> None:
    file = tmp_path / "tokens.json"
    file.write_text(text % {"a": "a" * 64, "b": "b" * 64})

    with pytest.raises(Misconfigured, match="NEARKIN_LOOKUP_TOKENS") as refused:
        read_tokens(file)
    assert problem in str(refused.value)
    assert "s3cret" not in str(refused.value)


def test_a_file_that_is_away_is_told(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match="No such file"):
        TokenFile(tmp_path / "tokens.json")
