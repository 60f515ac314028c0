"""Every metric of every process, declared once. `python -m nearkin.ops.metrics` prints the page that documents them.

A name ends in its unit. What a process uses (processor, memory, files, garbage) is told by prometheus_client's own
collectors, under the names that every dashboard of processes knows. A process makes one `Metrics` on a registry of its
own and passes it to what it wires, so nothing is counted at import and two processes in one test do not mix.
"""

from collections.abc import Sequence

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    PlatformCollector,
    ProcessCollector,
)

import nearkin

PREFIX = "nearkin"

#: From 10 ms to 10 min, close together where an item's freshness is judged.
FRESHNESS_BUCKETS = (
    0.005, 0.01, 0.015, 0.02, 0.03, 0.04, 0.06, 0.08, 0.1, 0.15, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600
)  # fmt: skip
LATENCY_BUCKETS = (0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5)
SIZE_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)

#: The way of an event, in order. The last is the whole of it.
FRESHNESS_STAGES = (
    "occurred_to_broker",
    "broker_to_consumed",
    "consumed_to_encoded",
    "encoded_to_upserted",
    "upserted_to_visible",
    "occurred_to_visible",
)

#: The way of an event of feedback, in order. The last is the whole of it.
EVIDENCE_STAGES = ("occurred_to_broker", "broker_to_consumed", "consumed_to_applied", "occurred_to_applied")


class Metrics:
    """The metrics of one process.

    Args:
        registry: where they are collected.
        process: what the process is, such as ``indexer-live``.
    """

    def __init__(self, registry: CollectorRegistry, process: str = "") -> None:
        self.registry = registry
        self.declared: list[tuple[str, str, Sequence[str], str]] = []
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        GCCollector(registry=registry)

        self.build_info = self._gauge("build_info", "Always 1; its labels say what runs.", ("version", "process"))
        self.bundle_info = self._gauge(
            "bundle_info",
            "Always 1; with which encoder bundle a process encodes (use: encodes), and with which the collection was "
            "that it searches (use: searches).",
            ("bundle", "use"),
        )
        self.up = self._gauge("up", "1 while the process is ready to serve, 0 while it waits for something.")
        self.loop_lag = self._gauge(
            "loop_lag_seconds",
            "Time since the process's event loop last turned: below 1 s while it does, and it grows while it hangs.",
        )

        self.freshness = self._histogram(
            "freshness_seconds",
            "Age of an event at each step, from when it occurred to when a search returned its item. Stages: "
            f"{', '.join(FRESHNESS_STAGES)}; the two that end in visible are measured on a sample.",
            ("stage",),
            FRESHNESS_BUCKETS,
        )
        self._ages = {stage: self.freshness.labels(stage=stage) for stage in FRESHNESS_STAGES}
        self.freshness_clamped = self._counter(
            "freshness_clamped_total",
            "Ages that came out negative and were counted as 0, because clocks disagree.",
            ("stage",),
        )
        self.visible_unproved = self._counter(
            "visible_unproved_total", "Sampled items that no search returned in time after their write."
        )

        self.events = self._counter(
            "events_total",
            "Events by outcome: applied; superseded (it changed nothing: it came again, or is older than what is "
            "known); dead_lettered; of feedback also repeated (an event_id that came within the window) and clamped "
            "(one user did the same too often within it: suspicious), which do not count.",
            ("topic", "outcome"),
        )
        self.dead_letters = self._counter("dead_letters_total", "Dead letters by reason.", ("topic", "reason"))
        self.batch_events = self._histogram("batch_events", "Events handled at once.", (), SIZE_BUCKETS)
        self.handle_seconds = self._histogram(
            "handle_seconds", "Time that one batch took, retries included.", (), FRESHNESS_BUCKETS
        )
        self.retries = self._counter(
            "retries_total", "Tries repeated after a temporary failure, by the engine that failed.", ("engine",)
        )
        self.rebalances = self._counter("rebalances_total", "Times that partitions were assigned to this worker.")
        self.skipped_offsets = self._counter(
            "skipped_offsets_total",
            "Offsets that were never delivered between two that were. A topic without transactions has none: more than "
            "0 says that events may be missing from the index.",
            ("topic",),
        )
        self.waiting_events = self._gauge(
            "waiting_events", "Events on the broker, in this worker's partitions, that it has not acknowledged."
        )

        self.encode_seconds = self._histogram("encode_seconds", "Time of one call to the encoder.", (), LATENCY_BUCKETS)
        self.encoded_items = self._histogram("encoded_items", "Contents in one call to the encoder.", (), SIZE_BUCKETS)
        self.media_fetches = self._counter(
            "media_fetches_total",
            "Fetches of pictures and videos by outcome: fetched; remembered (fetched a moment ago); refused (for good, "
            "with the reason); unavailable (for now, with the reason).",
            ("outcome", "reason"),
        )
        self.media_fetch_seconds = self._histogram(
            "media_fetch_seconds",
            "Time of one fetch that succeeded, its wait for a turn included.",
            (),
            FRESHNESS_BUCKETS,
        )
        self.media_fetched_bytes = self._counter("media_fetched_bytes_total", "Bytes of media that were fetched.")
        self.media_decodes = self._counter(
            "media_decodes_total",
            "Pictures given to a decoder's process, by what they are and by outcome: decoded, or the reason why not; "
            "crash and hang cost a process, and a new one is started.",
            ("kind", "outcome"),
        )
        self.media_decode_seconds = self._histogram(
            "media_decode_seconds", "Time of decoding one picture, to the process and back.", (), LATENCY_BUCKETS
        )
        self.index_read_seconds = self._histogram(
            "index_read_seconds", "Time of reading what the index holds of a batch's items.", (), LATENCY_BUCKETS
        )
        self.upsert_seconds = self._histogram(
            "upsert_seconds",
            "Time of one write to the index, which returns when a search sees it.",
            (),
            LATENCY_BUCKETS,
        )
        self.write_conflicts = self._counter(
            "write_conflicts_total", "Writes that somebody else's write preceded; read, merged and written again."
        )
        self.index_points = self._gauge(
            "index_points", "Points of the collection that is written: items, and tombstones.", ("kind",)
        )

        self.evidence_freshness = self._histogram(
            "evidence_freshness_seconds",
            "Age of an event of feedback at each step, from when it occurred, as its producer says, to when Redis has "
            "applied it; look-ups that begin later read it. Of a large batch a sample; a late event counts with its "
            f"whole lateness. Stages: {', '.join(EVIDENCE_STAGES)}.",
            ("stage",),
            FRESHNESS_BUCKETS,
        )
        self._evidence_ages = {stage: self.evidence_freshness.labels(stage=stage) for stage in EVIDENCE_STAGES}
        self.evidence_batches = self._counter(
            "evidence_batches_total",
            "Batches for one shard by outcome: applied; duplicate (counted before); mismatch (a part was counted "
            "before, or is missing: made anew).",
            ("outcome",),
        )
        self.evidence_apply_seconds = self._histogram(
            "evidence_apply_seconds", "Time of one round trip of script calls to Redis.", (), LATENCY_BUCKETS
        )
        self.evidence_pairs = self._histogram(
            "evidence_pairs", "Pairs that are remembered of an anchor, on a sample.", (), SIZE_BUCKETS
        )
        self.evidence_regressions = self._counter(
            "evidence_regressions_total",
            "Times that Redis came back without what it had counted; it is counted again from the log.",
        )
        self.unexposed = self._counter(
            "unexposed_actions_total", "Actions that name no slate: kept apart, as nothing was expected of them."
        )
        self.guard_lag = self._gauge(
            "guard_lag_events",
            "Events of a partition on the broker that some shard of the evidence has not passed.",
            ("topic", "partition"),
        )
        self.feedback_expired = self._counter(
            "feedback_expired_total",
            "Offsets that the broker dropped before they were counted, or, where Redis had lost them, counted again.",
            ("topic",),
        )
        self.guards_ahead = self._counter(
            "guards_ahead_offsets_total",
            "Offsets by which a log was shorter than what was counted of it when a worker began with it, as after an "
            "unclean election of a leader: what comes there is taken for counted.",
            ("topic",),
        )

        self.priors_version = self._gauge(
            "position_priors_version", "Version of the position priors in force; 0 is the default."
        )
        self.position_prior = self._gauge(
            "position_prior_ratio",
            "Clicks that one exposure at a position of a surface is expected to bring, of the first 20 positions.",
            ("surface", "position"),
        )

        self.lookups = self._counter("lookups_total", "Look-ups by method and gRPC status code.", ("method", "code"))
        self.lookup_seconds = self._histogram(
            "lookup_seconds",
            "Time of a look-up by stage: turn (waiting for one), evidence, search (the index), popular (for thin "
            "anchors), visits (marginals, asked for where they are not remembered), rank (all look-ups of a call), "
            "total.",
            ("stage",),
            LATENCY_BUCKETS,
        )
        self.answers = self._counter(
            "lookups_answered_total", "Answers by the policy of the last draw that gave them.", ("policy",)
        )
        self.degraded = self._counter(
            "lookups_degraded_total", "Answers that had to do without a part, by the part.", ("part",)
        )
        self.engine_failures = self._counter(
            "engine_failures_total",
            "Questions of look-ups that an engine did not answer: slow (not within its share of the deadline), away, "
            "left_alone (not asked, because it failed again and again), failed (in a way that is not foreseen).",
            ("engine", "why"),
        )
        self.circuit_open = self._gauge(
            "circuit_open_ratio",
            "1 while look-ups leave an engine alone or try whether it is back, else 0.",
            ("engine",),
        )
        self.curation_decisions = self._gauge(
            "curation_decisions", "Decisions by hand that are in force: blocked_items, blocked_pairs, pins.", ("kind",)
        )
        self.curation_stale = self._gauge(
            "curation_stale_ratio",
            "1 while the file of decisions by hand cannot be used and those of an older one stay in force, else 0.",
        )
        self.lookups_logged = self._counter("lookups_logged_total", "Answers that lookups.v1 has taken.")
        self.lookups_unlogged = self._counter(
            "lookups_unlogged_total",
            "Answers that are not in lookups.v1, by reason: not_sampled; repeated (the same look-up again); "
            "buffer_full (the broker does not keep up, or is away); unwritable (the contract does not admit it); "
            "unsent (the server stopped first).",
            ("reason",),
        )
        self.lookup_log_waiting = self._gauge(
            "lookup_log_waiting_items", "Items of answers that wait to be logged; NEARKIN_LOOKUP_LOG_BUFFER at most."
        )
        self.lookup_log_seconds = self._histogram(
            "lookup_log_seconds", "Time from an answer to when lookups.v1 has it.", (), FRESHNESS_BUCKETS
        )

        self.monitor_lag = self._gauge(
            "monitor_lag_events",
            "Events of a partition on the broker beyond what its consumer group has committed, once a second, by what "
            "the broker says, not the group. Commits come once a second, so in steady flow it is a second's worth.",
            ("group", "topic", "partition"),
        )
        self.monitor_oldest_age = self._gauge(
            "monitor_oldest_age_seconds",
            "Age of the oldest event that waits in a lane (live, bulk, feedback, visits), by the time of its record; 0 "
            "where none waits. It grows while whoever serves the lane is stuck or dead, and while the broker is away.",
            ("lane",),
        )
        self.monitor_probe_seconds = self._histogram(
            "monitor_probe_seconds",
            "Time from publishing a probe item to the answer of a look-up that holds it (visible), and from publishing "
            "its deletion to the answer of one that does not (gone), both from outside.",
            ("step",),
            FRESHNESS_BUCKETS,
        )
        self.monitor_probes = self._counter(
            "monitor_probes_total",
            "Probe items by outcome: proved (visible and gone, each within NEARKIN_PROBE_LATE_S), late, failed (not "
            "published, not found or not gone before the monitor gave it up).",
            ("outcome",),
        )
        self.monitor_last_probe = self._gauge(
            "monitor_last_probe_timestamp_seconds",
            "When a probe item was last seen to come and to go, proved or late, in seconds since the epoch; 0 before.",
        )
        self.monitor_last_probe_seconds = self._gauge(
            "monitor_last_probe_seconds",
            "How long the last probe item that was seen to come and to go took for each: its freshness from outside.",
            ("step",),
        )
        self.monitor_part_up = self._gauge(
            "monitor_part_up",
            "1 where a part answered the monitor a moment ago, 0 where it did not or said that it waits.",
            ("part",),
        )
        self.monitor_index_points = self._gauge(
            "monitor_index_points",
            "Points of the collection that serves, counted from outside and without probes: items and tombstones.",
            ("kind",),
        )
        self.monitor_dead_letters = self._gauge(
            "monitor_dead_letters",
            "Dead letters that are neither settled nor gone from the broker, by reason, among the newest records of "
            "each partition of the topic (1,000 of each, if there are so many).",
            ("topic", "reason"),
        )
        self.monitor_certificate_expires = self._gauge(
            "monitor_certificate_expires_timestamp_seconds",
            "When the certificate expires that a part shows where the monitor connects by TLS, in seconds since the "
            "epoch.",
            ("part", "address"),
        )

        self.build_info.labels(version=nearkin.__version__, process=process).set(1)

    def evidence_age(self, stage: str, seconds: float) -> None:
        """Record the age of an event of feedback at a stage, as `age` does of an item's."""
        if seconds < 0:
            self.freshness_clamped.labels(stage=stage).inc()
            seconds = 0.0
        self._evidence_ages[stage].observe(seconds)

    def age(self, stage: str, seconds: float) -> None:
        """Record an event's age at a stage; clocks that disagree make it 0, and are counted."""
        if seconds < 0:
            self.freshness_clamped.labels(stage=stage).inc()
            seconds = 0.0
        self._ages[stage].observe(seconds)

    def _note(self, kind: str, name: str, text: str, labels: Sequence[str]) -> str:
        full = f"{PREFIX}_{name}"
        self.declared.append((full, kind, labels, text))
        return full

    def _counter(self, name: str, text: str, labels: Sequence[str] = ()) -> Counter:
        return Counter(self._note("counter", name, text, labels), text, labels, registry=self.registry)

    def _gauge(self, name: str, text: str, labels: Sequence[str] = ()) -> Gauge:
        return Gauge(self._note("gauge", name, text, labels), text, labels, registry=self.registry)

    def _histogram(self, name: str, text: str, labels: Sequence[str], buckets: Sequence[float]) -> Histogram:
        full = self._note("histogram", name, text, labels)
        return Histogram(full, text, labels, registry=self.registry, buckets=buckets)


def page() -> str:
    """The documentation of the metrics, as Markdown."""
    rows = [
        f"| `{name}` | {kind} | {', '.join(f'`{label}`' for label in labels)} | {text} |"
        for name, kind, labels, text in Metrics(CollectorRegistry()).declared
    ]
    return "\n".join(
        [
            "# Metrics",
            "",
            "Every process serves these under `/metrics` on `NEARKIN_METRICS_LISTEN`; it fills those that concern it.",
            "What it uses itself is told under prometheus_client's own names: `process_cpu_seconds_total`,",
            "`process_resident_memory_bytes`, `process_open_fds`, `process_start_time_seconds`, `python_gc_*`,",
            "`python_info`.",
            "This page is made by `python -m nearkin.ops.metrics`.",
            "",
            "| name | type | labels | what it says |",
            "|---|---|---|---|",
            *rows,
            "",
        ]
    )


if __name__ == "__main__":
    print(page(), end="")  # noqa: T201  # its purpose
