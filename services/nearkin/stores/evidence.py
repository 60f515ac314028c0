"""Evidence in Redis: one hash for each anchor, and one script call for each partition and shard.

```
nk:{SHARD}           half_life, visits, newest, and a guard for each source: "TOPIC ID:PARTITION" -> offset
nk:{SHARD}:ANCHOR    "" -> landmark and visits; CANDIDATE -> packed counts
nk:priors            version, and the position priors as JSON
nk:former            of topics that are gone, until they are forgotten: "TOPIC ID:PARTITION" -> "SUM:SINCE:LOOKS"
```

`evidence.lua` beside this file applies a batch and moves its guard together, so an event counts once, however often it
comes. A shard's keys share a hash tag, so a cluster keeps them in one place. Why the counts are packed:
docs/decisions/0007-evidence-in-redis.md.
"""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from functools import lru_cache
from hashlib import sha1
from pathlib import Path
from struct import Struct
from typing import Any

import msgspec
import numpy as np
from redis.asyncio import RedisCluster
from redis.exceptions import NoScriptError

from nearkin.core.errors import Misconfigured
from nearkin.core.evidence import (
    DAY_MS,
    MOVE_AFTER,
    AnchorEvidence,
    Array,
    Bookkeeping,
    Effect,
    EvidenceRules,
    Metric,
    Outcome,
    Remembered,
    ShardBatch,
    Source,
    decay_to,
)
from nearkin.core.former_sources import Standstill, former_sources
from nearkin.core.position_priors import PositionPriors
from nearkin.ops.credential import Credential
from nearkin.ops.settings import Settings
from nearkin.stores.redis_client import Call, Client, ask, ask_masters, open_redis, send, translated
from nearkin.stores.shards import SHARDS, check_shards, shard_of

#: Begins every key.
PREFIX = "nk"

_SCRIPT = Path(__file__).with_suffix(".lua").read_bytes()
_SCRIPT_ID = sha1(_SCRIPT, usedforsecurity=False).hexdigest()

#: Sets priors where the version before theirs is held.
_PUBLISH = b"""
if (redis.call('HGET', KEYS[1], 'version') or '0') ~= ARGV[1] then return 0 end
redis.call('HSET', KEYS[1], 'version', ARGV[2], 'priors', ARGV[3])
return 1
"""
_PRIORS = msgspec.json.Decoder(PositionPriors)

#: Removes guards of a shard that are what they were when they were read.
_FORGET = b"""
for place = 1, #ARGV, 2 do
  if redis.call('HGET', KEYS[1], ARGV[place]) == ARGV[place + 1] then redis.call('HDEL', KEYS[1], ARGV[place]) end
end
return 0
"""

#: The marginals of some anchors. A call for each would cost the caller ten times as much, and Redis twice.
_MARGINALS = """
local held = {}
for place, key in ipairs(KEYS) do held[place] = redis.call('HGET', key, '') end
return held
"""
_KEYS_AT_ONCE = 500

_TOTAL = Struct("<id")
_MASK = Struct("<H")
_SHOWN, _SHOWN_MASK = Struct("<Hdd"), 1 << Metric.EXPOSURES | 1 << Metric.EXPECTED


def connect(settings: Settings, rules: EvidenceRules) -> "RedisEvidence":
    """The evidence in the Redis that the settings name; nothing is sent before the first call.

    Raises:
        Misconfigured: the setting is no URL of a Redis.
    """
    password = Credential("redis_password", settings.redis_password)
    redis = open_redis(
        settings.redis_url,
        settings.redis_timeout_s,
        tls=settings.redis_tls,
        username=settings.redis_username,
        password=password if password() else None,
    )
    return RedisEvidence(redis, rules)


def rules_of(settings: Settings) -> EvidenceRules:
    """How long evidence counts, and how much of it is kept, as the settings say: the same for all who share a store."""
    return EvidenceRules(
        settings.evidence_half_life_days * DAY_MS, settings.evidence_most_pairs, settings.evidence_idle_days * DAY_MS
    )


class RedisEvidence:
    """What is remembered of pairs of items.

    Args:
        client: how Redis is reached, one server or a cluster; it must not decode answers. Closed with this object.
        rules: how long evidence counts, and how much of it is kept.
        prefix: begins every key.
    """

    def __init__(self, client: Client, rules: EvidenceRules, prefix: str = PREFIX) -> None:
        self._client, self._rules, self._prefix = client, rules, prefix

    async def check(self) -> None:
        """Refuse a Redis that would forget.

        Raises:
            Misconfigured: it may evict keys, keeps no append-only file, or counts with another half-life.
        """
        for server in await ask_masters(self._client, "INFO"):
            policy = server.get("maxmemory_policy")
            if policy != "noeviction":
                raise Misconfigured(
                    f"Redis may evict evidence: its maxmemory-policy is {policy}",
                    field="NEARKIN_REDIS_URL",
                    remedy="set maxmemory-policy to noeviction, or give a Redis that has it",
                    reason="eviction",
                )
            if not server.get("aof_enabled"):
                raise Misconfigured(
                    "Redis keeps no append-only file, so it would come back without the latest evidence",
                    field="NEARKIN_REDIS_URL",
                    remedy="set appendonly to yes (appendfsync everysec will do), or give a Redis that has it",
                    reason="no_append_only_file",
                )
        half_lives = await ask(self._client, [("HGET", self._shard_key(shard), "half_life") for shard in range(SHARDS)])
        for held in half_lives:
            if held is not None and int(held) != self._rules.half_life_ms:
                raise self._other_half_life(held)

    def shard_of(self, item_id: str) -> int:
        """The shard that holds an item's evidence."""
        return shard_of(item_id)

    async def read_guards(self, source: Source) -> list[int]:
        """For each shard the offset of the first event of a partition that it has not applied; 0 at first."""
        field = _guard_field(source)
        held = await ask(self._client, [("HGET", self._shard_key(shard), field) for shard in range(SHARDS)])
        return [int(guard or 0) for guard in held]

    async def apply(self, batches: Sequence[ShardBatch]) -> list[Outcome]:
        """Apply batches in one round trip, each wholly and only where its shard's guard is at its start."""
        check_shards(batches)
        calls = [self._script_call(batch) for batch in batches]
        answers = await send(self._client, calls)
        unknown = [place for place, answer in enumerate(answers) if isinstance(answer, NoScriptError)]
        if unknown:
            await ask_masters(self._client, "SCRIPT LOAD", _SCRIPT)
            for place, answer in zip(
                unknown, await send(self._client, [calls[place] for place in unknown]), strict=True
            ):
                answers[place] = answer
        outcomes = []
        for answer in answers:
            if isinstance(answer, Exception):
                raise translated(answer) from answer
            effect, held = answer
            if effect == b"half_life":
                raise self._other_half_life(held)
            outcomes.append(Outcome(Effect(effect.decode()), int(held)))
        return outcomes

    async def read(self, anchors: Sequence[str], marginals_of: Sequence[str], at_ms: int) -> Remembered:
        """What is remembered of some anchors, and how often other items were visited, in one round trip."""
        calls: list[Call] = [("HGETALL", self._anchor_key(anchor)) for anchor in anchors]
        groups = self._by_call(marginals_of)
        calls += [("EVAL", _MARGINALS, len(ids), *map(self._anchor_key, ids)) for ids in groups]
        answers = await ask(self._client, calls)
        return Remembered(
            {anchor: self._evidence(fields, at_ms) for anchor, fields in zip(anchors, answers, strict=False)},
            {
                item_id: self._total(packed, at_ms)
                for ids, held in zip(groups, answers[len(anchors) :], strict=True)
                for item_id, packed in zip(ids, held, strict=True)
            },
        )

    def _by_call(self, ids: Sequence[str]) -> list[Sequence[str]]:
        """Items in portions whose keys one script may read: of a cluster, those of one shard."""
        if not isinstance(self._client, RedisCluster):
            return [ids[start : start + _KEYS_AT_ONCE] for start in range(0, len(ids), _KEYS_AT_ONCE)]
        groups: dict[int, list[str]] = {}
        for item_id in ids:
            groups.setdefault(shard_of(item_id), []).append(item_id)
        return list(groups.values())

    async def read_visits(self, at_ms: int) -> float:
        """All visits, decayed to a moment."""
        held = await ask(self._client, [("HGET", self._shard_key(shard), "visits") for shard in range(SHARDS)])
        return sum(self._total(packed, at_ms) for packed in held)

    async def read_bookkeeping(self, anchor: str) -> Bookkeeping:
        """Where an anchor's evidence is kept, and how far its shard is."""
        shard = shard_of(anchor)
        fields, packed = await ask(
            self._client, [("HGETALL", self._shard_key(shard)), ("HGET", self._anchor_key(anchor), "")]
        )
        return Bookkeeping(shard, None if packed is None else _TOTAL.unpack(packed)[0], _guards(fields))

    async def forget_former(
        self, present: Collection[str], now_ms: int, still_ms: int, least_looks: int
    ) -> frozenset[Source]:
        """Forget the guards of topics that are gone, where none moved for so long and so many looks."""
        keys = [self._shard_key(shard) for shard in range(SHARDS)]
        *shards, held = await ask(self._client, [("HGETALL", key) for key in (*keys, self._former_key())])
        of_shards = [_guards(fields) for fields in shards]
        totals: Counter[Source] = Counter()
        for guards in of_shards:
            totals.update(guards)
        noted = _standstills(held)
        standing, due = former_sources(totals, noted, present, now_ms, still_ms, least_looks)
        calls: list[Call] = []
        for key, guards in zip(keys, of_shards, strict=True):
            if gone := [part for source in due & guards.keys() for part in (_guard_field(source), guards[source])]:
                calls.append(("EVAL", _FORGET, 1, key, *gone))
        await ask(self._client, calls)
        # Last: where this ends before, what is left is noted as if it had just begun to stand still.
        notes: list[Call] = [
            ("HSET", self._former_key(), _guard_field(source), ":".join(map(str, still)))
            for source, still in standing.items()
        ]
        notes += [("HDEL", self._former_key(), _guard_field(source)) for source in noted.keys() - standing.keys()]
        await ask(self._client, notes)
        return due

    async def read_newest(self) -> int:
        """The newest time that an applied event told, in milliseconds; 0 before the first."""
        held = await ask(self._client, [("HGET", self._shard_key(shard), "newest") for shard in range(SHARDS)])
        return max(int(newest or 0) for newest in held)

    async def publish_priors(self, priors: PositionPriors) -> bool:
        """Put priors in force where those before them are."""
        value = msgspec.json.encode(priors)
        call = ("EVAL", _PUBLISH, 1, self._priors_key(), priors.version - 1, priors.version, value)
        (published,) = await ask(self._client, [call])
        return bool(published)

    async def read_priors(self) -> PositionPriors:
        """The position priors in force."""
        (held,) = await ask(self._client, [("HGET", self._priors_key(), "priors")])
        try:
            return PositionPriors() if held is None else _PRIORS.decode(held)
        except msgspec.DecodeError as error:
            raise Misconfigured(
                f"the key {self._priors_key()} of this Redis does not hold position priors",
                field="NEARKIN_REDIS_URL",
                remedy="use this version of Nearkin for all programs, or delete that key: they are learned again",
                reason="priors",
            ) from error

    async def close(self) -> None:
        """Release connections."""
        await self._client.aclose()

    def _script_call(self, batch: ShardBatch) -> Call:
        rules = self._rules
        keys = [self._shard_key(batch.shard), *(self._anchor_key(delta.anchor) for delta in batch.deltas)]
        arguments: list[Any] = [_guard_field(batch.source), batch.start, batch.end, rules.half_life_ms]
        arguments += [batch.landmark, batch.visits]
        arguments += [rules.most_pairs, rules.pairs_after_trim, rules.idle_ms, MOVE_AFTER, batch.newest_ms]
        for delta in batch.deltas:
            pairs = [_pack(counts) + candidate.encode() for candidate, counts in delta.pairs.items() if any(counts)]
            arguments += (delta.visits, len(pairs), *pairs)
        return ("EVALSHA", _SCRIPT_ID, len(keys), *keys, *arguments)

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

    def _priors_key(self) -> str:
        return f"{self._prefix}:priors"

    def _former_key(self) -> str:
        return f"{self._prefix}:former"

    def _other_half_life(self, held: bytes) -> Misconfigured:
        held_days, days = int(held) / DAY_MS, self._rules.half_life_ms / DAY_MS
        return Misconfigured(
            f"this Redis counts with a half-life of {held_days:g} days, not {days:g}",
            field="NEARKIN_EVIDENCE_HALF_LIFE_DAYS",
            remedy="use the half-life that it was begun with, or an empty Redis",
            reason="half_life",
        )


def _guard_field(source: Source) -> str:
    return f"{source.topic_id}:{source.partition}"


def _guards(fields: Mapping[bytes, bytes]) -> dict[Source, int]:
    """The guards among the fields of a shard."""
    return {_source(name): int(value) for name, value in fields.items() if b":" in name}


def _standstills(fields: Mapping[bytes, bytes]) -> dict[Source, Standstill]:
    """What is noted of former sources."""
    return {_source(name): Standstill(*map(int, value.split(b":"))) for name, value in fields.items()}


def _source(field: bytes) -> Source:
    """The source that `_guard_field` names."""
    topic_id, _, partition = field.decode().rpartition(":")
    return Source(topic_id, int(partition))


def _pack(counts: Sequence[float]) -> bytes:
    """A mask of the metrics that are not 0, and a double for each."""
    if counts[0] and counts[1] and not any(counts[2:]):  # most pairs were shown and no more
        return _SHOWN.pack(_SHOWN_MASK, counts[0], counts[1])
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
