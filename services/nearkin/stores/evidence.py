"""Evidence in Redis: one hash for each anchor, and one script call for each partition and shard.

```
nk:{SHARD}           half_life, visits, and a guard for each source: "TOPIC ID:PARTITION" -> offset
nk:{SHARD}:ANCHOR    "" -> landmark and visits; CANDIDATE -> packed counts
```

`evidence.lua` beside this file applies a batch and moves its guard together, so an event counts once, however often it
comes. A shard's keys share a hash tag, so a cluster keeps them in one place. Why the counts are packed:
docs/decisions/0007-evidence-in-redis.md.
"""

import re
from collections.abc import Sequence
from functools import lru_cache
from hashlib import sha1
from pathlib import Path
from struct import Struct
from typing import Any

import numpy as np
from redis import asyncio as redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import (
    AuthenticationError,
    BusyLoadingError,
    ClusterDownError,
    NoPermissionError,
    NoScriptError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
    TryAgainError,
)

from nearkin.core.errors import Misconfigured, NearkinError, Unavailable
from nearkin.core.evidence import (
    MOVE_AFTER,
    AnchorEvidence,
    Array,
    Effect,
    EvidenceRules,
    Metric,
    Outcome,
    Remembered,
    ShardBatch,
    Source,
    decay_to,
)
from nearkin.ops.settings import Settings
from nearkin.stores.shards import SHARDS, check_shards, shard_of

#: How long a call may take, in seconds.
TIMEOUT_S = 5.0

#: Begins every key.
PREFIX = "nk"

_SCRIPT = Path(__file__).with_suffix(".lua").read_bytes()
_SCRIPT_ID = sha1(_SCRIPT, usedforsecurity=False).hexdigest()

_TOTAL = Struct("<id")
_MASK = Struct("<H")

#: What a refusal is known to mean for now. Its word stands in the text, in the midst of a script's own words too, or
#: redis-py has made a class of it.
_REFUSALS = {
    "OOM": "it has no memory left; raise its maxmemory, writes resume by themselves",
    "MISCONF": "it cannot write to its disk; free some space, writes resume by themselves",
    "READONLY": "it is a replica, which takes no writes",
    "LOADING": "it loads its data",
    "BUSY": "it is busy with a script",
    "NOREPLICAS": "too few replicas are there",
    "CLUSTERDOWN": "the cluster does not serve this shard",
    "TRYAGAIN": "the cluster moves this shard",
}
_WORDS: dict[type[RedisError], str] = {
    OutOfMemoryError: "OOM",
    ReadOnlyError: "READONLY",
    BusyLoadingError: "LOADING",
    ClusterDownError: "CLUSTERDOWN",
    TryAgainError: "TRYAGAIN",
}


def connect(settings: Settings, rules: EvidenceRules) -> "RedisEvidence":
    """The evidence in the Redis that the settings name; nothing is sent before the first call.

    Raises:
        Misconfigured: the setting is no URL of a Redis.
    """
    try:
        # Once more, at once, for a connection that broke while it was idle; a batch that is sent twice counts once.
        client = redis.Redis.from_url(
            settings.redis_url,
            socket_timeout=TIMEOUT_S,
            socket_connect_timeout=TIMEOUT_S,
            retry=Retry(NoBackoff(), 1),
        )
    except ValueError as error:
        raise Misconfigured(
            "it is no URL of a Redis",
            field="NEARKIN_REDIS_URL",
            remedy="give redis://HOST:PORT/DATABASE, or rediss:// for TLS",
        ) from error
    return RedisEvidence(client, rules)


def translated(error: RedisError) -> NearkinError:
    """What a failed call means to Nearkin, in words of its own: Redis may quote what was sent to it."""
    if isinstance(error, AuthenticationError | NoPermissionError):
        return Misconfigured(
            "Redis refuses the user or the password",
            field="NEARKIN_REDIS_URL",
            remedy="give a user that may run scripts and INFO, and write keys that begin with nk:",
        )
    said = {_WORDS.get(type(error)), *re.findall("[A-Z]+", str(error))}
    for word, meaning in _REFUSALS.items():
        if word in said:
            return Unavailable("evidence", meaning)
    if isinstance(error, ResponseError):
        return Misconfigured(
            "Redis refuses the request",
            field="NEARKIN_REDIS_URL",
            remedy="check that it is a Redis of version 6.2 or newer, where no other program uses keys that begin "
            "with nk:",
            reason="redis_refuses",
        )
    return Unavailable("evidence", type(error).__name__)


class RedisEvidence:
    """What is remembered of pairs of items.

    Args:
        client: how Redis is reached; it must not decode answers. Closed with this object.
        rules: how long evidence counts, and how much of it is kept.
        prefix: begins every key.
    """

    def __init__(self, client: "redis.Redis", rules: EvidenceRules, prefix: str = PREFIX) -> None:
        self._client, self._rules, self._prefix = client, rules, prefix

    async def check(self) -> None:
        """Refuse a Redis that would forget.

        Raises:
            Misconfigured: it may evict keys, keeps no append-only file, or counts with another half-life.
        """
        calls: list[tuple[Any, ...]] = [("INFO", "memory"), ("INFO", "persistence")]
        calls += [("HGET", self._shard_key(shard), "half_life") for shard in range(SHARDS)]
        memory, persistence, *half_lives = await self._ask(calls)
        policy = memory.get("maxmemory_policy")
        if policy != "noeviction":
            raise Misconfigured(
                f"Redis may evict evidence: its maxmemory-policy is {policy}",
                field="NEARKIN_REDIS_URL",
                remedy="set maxmemory-policy to noeviction, or give a Redis that has it",
                reason="eviction",
            )
        if not persistence.get("aof_enabled"):
            raise Misconfigured(
                "Redis keeps no append-only file, so it would come back without the latest evidence",
                field="NEARKIN_REDIS_URL",
                remedy="set appendonly to yes (appendfsync everysec will do), or give a Redis that has it",
                reason="no_append_only_file",
            )
        for held in half_lives:
            if held is not None and int(held) != self._rules.half_life_ms:
                raise self._other_half_life(held)

    def shard_of(self, item_id: str) -> int:
        """The shard that holds an item's evidence."""
        return shard_of(item_id)

    async def read_guards(self, source: Source) -> list[int]:
        """For each shard the offset of the first event of a partition that it has not applied; 0 at first."""
        field = _guard_field(source)
        held = await self._ask([("HGET", self._shard_key(shard), field) for shard in range(SHARDS)])
        return [int(guard or 0) for guard in held]

    async def apply(self, batches: Sequence[ShardBatch]) -> list[Outcome]:
        """Apply batches in one round trip, each wholly and only where its shard's guard is at its start."""
        check_shards(batches)
        calls = [self._script_call(batch) for batch in batches]
        answers = await self._send(calls)
        unknown = [place for place, answer in enumerate(answers) if isinstance(answer, NoScriptError)]
        if unknown:
            await self._ask([("SCRIPT LOAD", _SCRIPT)])
            for place, answer in zip(unknown, await self._send([calls[place] for place in unknown]), strict=True):
                answers[place] = answer
        outcomes = []
        for answer in answers:
            if isinstance(answer, RedisError):
                raise translated(answer) from answer
            effect, held = answer
            if effect == b"half_life":
                raise self._other_half_life(held)
            outcomes.append(Outcome(Effect(effect.decode()), int(held)))
        return outcomes

    async def read(self, anchors: Sequence[str], marginals_of: Sequence[str], at_ms: int) -> Remembered:
        """What is remembered of some anchors, and how often other items were visited, in one round trip."""
        calls: list[tuple[Any, ...]] = [("HGETALL", self._anchor_key(anchor)) for anchor in anchors]
        calls += [("HGET", self._anchor_key(item_id), "") for item_id in marginals_of]
        answers = await self._ask(calls)
        return Remembered(
            {anchor: self._evidence(fields, at_ms) for anchor, fields in zip(anchors, answers, strict=False)},
            {
                item_id: self._total(packed, at_ms)
                for item_id, packed in zip(marginals_of, answers[len(anchors) :], strict=True)
            },
        )

    async def read_visits(self, at_ms: int) -> float:
        """All visits, decayed to a moment."""
        held = await self._ask([("HGET", self._shard_key(shard), "visits") for shard in range(SHARDS)])
        return sum(self._total(packed, at_ms) for packed in held)

    async def close(self) -> None:
        """Release connections."""
        await self._client.aclose()

    def _script_call(self, batch: ShardBatch) -> tuple[Any, ...]:
        rules = self._rules
        keys = [self._shard_key(batch.shard), *(self._anchor_key(delta.anchor) for delta in batch.deltas)]
        arguments: list[Any] = [_guard_field(batch.source), batch.start, batch.end, rules.half_life_ms]
        arguments += [batch.landmark, batch.visits]
        arguments += [rules.most_pairs, rules.pairs_after_trim, rules.idle_ms, MOVE_AFTER]
        for delta in batch.deltas:
            pairs: list[Any] = []
            for candidate, counts in delta.pairs.items():
                packed = _pack(counts)
                if len(packed) > _MASK.size:
                    pairs += (candidate, packed)
            arguments += (delta.visits, len(pairs) // 2, *pairs)
        return ("EVALSHA", _SCRIPT_ID, len(keys), *keys, *arguments)

    async def _ask(self, calls: Sequence[tuple[Any, ...]]) -> list[Any]:
        """The answers to some calls, in one round trip."""
        answers = await self._send(calls)
        for answer in answers:
            if isinstance(answer, RedisError):
                raise translated(answer) from answer
        return answers

    async def _send(self, calls: Sequence[tuple[Any, ...]]) -> list[Any]:
        """The answers to some calls, a refusal in the place of its answer."""
        if not calls:
            return []
        try:
            async with self._client.pipeline(transaction=False) as pipeline:
                for call in calls:
                    pipeline.execute_command(*call)
                answers: list[Any] = await pipeline.execute(raise_on_error=False)
                return answers
        except RedisError as error:
            raise translated(error) from error

    def _evidence(self, fields: dict[bytes, bytes], at_ms: int) -> AnchorEvidence:
        total = fields.pop(b"", None)
        counts: Array = np.zeros((len(fields), len(Metric)))
        if total is None:
            return AnchorEvidence(0.0, (), counts)
        landmark, visits = _TOTAL.unpack(total)
        for row, packed in zip(counts, fields.values(), strict=True):
            metrics, layout = _layout(packed[0] | packed[1] << 8)
            row[metrics] = layout.unpack_from(packed, _MASK.size)
        scale = decay_to(at_ms, landmark, self._rules.half_life_ms)
        return AnchorEvidence(visits * scale, tuple(candidate.decode() for candidate in fields), counts * scale)

    def _total(self, packed: bytes | None, at_ms: int) -> float:
        if packed is None:
            return 0.0
        landmark, visits = _TOTAL.unpack(packed)
        return float(visits * decay_to(at_ms, landmark, self._rules.half_life_ms))

    def _shard_key(self, shard: int) -> str:
        return f"{self._prefix}:{{{shard}}}"

    def _anchor_key(self, anchor: str) -> str:
        return f"{self._prefix}:{{{shard_of(anchor)}}}:{anchor}"

    def _other_half_life(self, held: bytes) -> Misconfigured:
        return Misconfigured(
            f"this Redis counts with a half-life of {int(held)} ms, not {self._rules.half_life_ms}",
            field="half_life_ms",
            remedy="use the half-life that it was begun with, or an empty Redis",
            reason="half_life",
        )


def _guard_field(source: Source) -> str:
    return f"{source.topic_id}:{source.partition}"


def _pack(counts: Sequence[float]) -> bytes:
    """A mask of the metrics that are not 0, and a double for each."""
    mask, values = 0, []
    for metric, count in enumerate(counts):
        if count:
            mask |= 1 << metric
            values.append(count)
    return _MASK.pack(mask) + _layout(mask)[1].pack(*values)


@lru_cache(maxsize=1024)
def _layout(mask: int) -> tuple[list[int], Struct]:
    """The metrics of a mask in order, and how their counts are packed."""
    metrics = [metric.value for metric in Metric if mask >> metric & 1]
    return metrics, Struct(f"<{len(metrics)}d")
