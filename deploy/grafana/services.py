"""A dashboard for each service: whether it runs, what it does, what holds it up, and what it uses of the machine."""

from collections.abc import Sequence

from deploy.grafana.panels import EACH, Board, Panel, Query, Unit, Variable, percentiles, rate
from deploy.prometheus.alerts import FEEDBACK, INDEXER, LOOKUP, MONITOR

HERE = 'job=~"$job", instance=~"$instance"'


def chosen(jobs: str) -> list[Variable]:
    """Which processes: by job, and of these by instance."""
    return [
        Variable("job", f'nearkin_build_info{{job=~"{jobs}"}}', "Job"),
        Variable("instance", f'nearkin_build_info{{job=~"{jobs}", job=~"$job"}}', "Instance"),
    ]


def state(jobs: str) -> tuple[str, Sequence[Panel]]:
    """Whether its processes run."""
    here = f'job=~"{jobs}", {HERE}'
    return (
        "Whether it runs",
        [
            Panel(
                "Processes that are ready",
                "Down is a process that runs, and waits for something that it needs.",
                Unit.NONE,
                [Query(f"nearkin_up{{{here}}}", "{{job}} {{instance}}")],
                kind="up",
                width=9,
            ),
            Panel(
                "Processes that answer",
                "Down is one whose /metrics Prometheus cannot read: it is dead, or hangs.",
                Unit.NONE,
                [Query(f"up{{{here}}}", "{{job}} {{instance}}")],
                kind="up",
                width=9,
            ),
            Panel(
                "Versions",
                "How many processes run which version.",
                Unit.COUNT,
                [Query(f"count by (version) (nearkin_build_info{{{here}}})", "{{version}}")],
                kind="figures",
                width=6,
            ),
        ],
    )


def machine(jobs: str) -> tuple[str, Sequence[Panel]]:
    """What its processes use."""
    here, each = f'job=~"{jobs}", {HERE}', "{{job}} {{instance}}"
    return (
        "What it uses",
        [
            Panel(
                "Processor",
                "Cores in use.",
                Unit.COUNT,
                [Query(f"rate(process_cpu_seconds_total{{{here}}}[{EACH}])", each)],
            ),
            Panel(
                "Memory",
                "Resident memory. One that grows for hours under the same load leaks.",
                Unit.BYTES,
                [Query(f"process_resident_memory_bytes{{{here}}}", each)],
            ),
            Panel(
                "Open files",
                "Files and sockets, as a share of what the process may open.",
                Unit.SHARE,
                [Query(f"process_open_fds{{{here}}} / process_max_fds{{{here}}}", each)],
                alarm=0.8,
            ),
            Panel(
                "Time since it was started",
                "A saw's teeth are restarts.",
                Unit.SECONDS,
                [Query(f"time() - process_start_time_seconds{{{here}}}", each)],
            ),
        ],
    )


def worker(jobs: str) -> tuple[str, Sequence[Panel]]:
    """What both Faust services have."""
    here, each = f'job=~"{jobs}", {HERE}', "{{job}} {{instance}}"
    return (
        "What it does",
        [
            Panel(
                "Events by outcome",
                "What became of the events that it took.",
                Unit.PER_SECOND,
                [rate("nearkin_events_total", here, "topic, outcome")],
            ),
            Panel(
                "Events that wait",
                "On the broker, in its partitions, and not acknowledged.",
                Unit.COUNT,
                [Query(f"nearkin_waiting_events{{{here}}}", each)],
            ),
            Panel(
                "Events in a batch",
                "Handled at once. Large batches: it has more to do than time.",
                Unit.COUNT,
                percentiles("nearkin_batch_events", here, "job"),
            ),
            Panel(
                "Time of a batch",
                "Retries included.",
                Unit.SECONDS,
                percentiles("nearkin_handle_seconds", here, "job"),
            ),
            Panel(
                "Tries repeated by engine",
                "Temporary failures that are tried again in place, while the partition waits.",
                Unit.PER_SECOND,
                [rate("nearkin_retries_total", here, "job, engine")],
            ),
            Panel(
                "Dead letters by reason",
                "What it refused.",
                Unit.PER_SECOND,
                [rate("nearkin_dead_letters_total", here, "topic, reason")],
            ),
            Panel(
                "Partitions were assigned",
                "Rebalances. Many, with no deployment going on: workers come and go.",
                Unit.COUNT,
                [Query(f"sum by (job) (increase(nearkin_rebalances_total{{{here}}}[{EACH}]))", "{{job}}")],
            ),
            Panel(
                "Time since the event loop turned",
                "Below 1 s while it does. It grows while the process hangs.",
                Unit.SECONDS,
                [Query(f"nearkin_loop_lag_seconds{{{here}}}", each)],
                attention=1,
                alarm=10,
            ),
        ],
    )


_INDEXERS = "indexer-.*"

INDEXERS = Board(
    INDEXER,
    "Nearkin: indexer",
    "The service that brings items into the index, of both lanes.",
    chosen(_INDEXERS),
    [
        state(_INDEXERS),
        worker(_INDEXERS),
        (
            "Encoding and writing",
            [
                Panel(
                    "Time of one encoder call",
                    "One call encodes a batch of contents.",
                    Unit.SECONDS,
                    percentiles("nearkin_encode_seconds", HERE, "job"),
                ),
                Panel(
                    "Contents in an encoder call",
                    "Only what changed is encoded.",
                    Unit.COUNT,
                    percentiles("nearkin_encoded_items", HERE, "job"),
                ),
                Panel(
                    "Time of one write to the index",
                    "A write returns when a search sees it.",
                    Unit.SECONDS,
                    percentiles("nearkin_upsert_seconds", HERE, "job"),
                ),
                Panel(
                    "Time of reading what the index holds",
                    "Of the items of a batch, before they are written.",
                    Unit.SECONDS,
                    percentiles("nearkin_index_read_seconds", HERE, "job"),
                ),
                Panel(
                    "Writes that came second",
                    "Somebody else wrote the same item meanwhile; it was read, merged and written again.",
                    Unit.PER_SECOND,
                    [rate("nearkin_write_conflicts_total", HERE, "job")],
                ),
                Panel(
                    "Samples that no search returned",
                    "Items that were written and not found in time. They count as late.",
                    Unit.PER_SECOND,
                    [rate("nearkin_visible_unproved_total", HERE, "job")],
                ),
                Panel(
                    "Points in the collection that is written",
                    "Items and tombstones.",
                    Unit.COUNT,
                    [Query(f"max by (kind) (nearkin_index_points{{{HERE}}})", "{{kind}}")],
                ),
            ],
        ),
        machine(_INDEXERS),
    ],
)

FEEDBACK_WORKER = Board(
    FEEDBACK,
    "Nearkin: feedback worker",
    "The service that brings feedback and visits into the evidence.",
    chosen("feedback"),
    [
        state("feedback"),
        worker("feedback"),
        (
            "Counting",
            [
                Panel(
                    "Batches by outcome",
                    "Of one shard each.",
                    Unit.PER_SECOND,
                    [rate("nearkin_evidence_batches_total", HERE, "outcome")],
                ),
                Panel(
                    "Time of one round trip to Redis",
                    "Of the script calls that apply a batch.",
                    Unit.SECONDS,
                    percentiles("nearkin_evidence_apply_seconds", HERE),
                ),
                Panel(
                    "Lag of the guards by partition",
                    "Events that some shard of the evidence has not passed.",
                    Unit.COUNT,
                    [
                        Query(
                            f"sum by (topic, partition) (nearkin_guard_lag_events{{{HERE}}})", "{{topic}} {{partition}}"
                        )
                    ],
                ),
                Panel(
                    "Redis went back",
                    "Times that it came back without what it had counted.",
                    Unit.COUNT,
                    [Query(f"sum(increase(nearkin_evidence_regressions_total{{{HERE}}}[{EACH}]))", "times")],
                    alarm=1,
                ),
            ],
        ),
        machine("feedback"),
    ],
)

LOOKUPS = Board(
    LOOKUP,
    "Nearkin: look-ups",
    "The service that answers look-ups.",
    chosen("lookup"),
    [
        state("lookup"),
        (
            "What it answers",
            [
                Panel(
                    "Look-ups by method and status",
                    "Calls by gRPC status code.",
                    Unit.PER_SECOND,
                    [rate("nearkin_lookups_total", HERE, "method, code")],
                ),
                Panel(
                    "Share of look-ups without an answer",
                    "RESOURCE_EXHAUSTED are refused, as the server works on as many as it may (or a request was "
                    "too large); "
                    "UNAVAILABLE, DEADLINE_EXCEEDED and INTERNAL failed. Mistakes of callers are not among them.",
                    Unit.SHARE,
                    [
                        Query(
                            'sum by (code) (rate(nearkin_lookups_total{code=~"RESOURCE_EXHAUSTED|UNAVAILABLE|'
                            f'DEADLINE_EXCEEDED|INTERNAL|UNKNOWN", {HERE}}}[{EACH}]))\n'
                            f"/ on () group_left () sum(rate(nearkin_lookups_total{{{HERE}}}[{EACH}]))",
                            "{{code}}",
                        )
                    ],
                    alarm=0.01,
                ),
                Panel(
                    "Time of a look-up",
                    "From when a call came in to when its answer went out.",
                    Unit.SECONDS,
                    percentiles("nearkin_lookup_seconds", f'stage="total", {HERE}', of=(0.5, 0.9, 0.99)),
                    alarm=0.25,
                ),
                Panel(
                    "Time by stage, 99th percentile",
                    "Evidence and search are engines; rank is this process's own work.",
                    Unit.SECONDS,
                    percentiles("nearkin_lookup_seconds", f'stage!="total", {HERE}', "stage", (0.99,)),
                ),
            ],
        ),
        (
            "Its engines",
            [
                Panel(
                    "Questions that an engine did not answer",
                    "Slow, away, left alone because it failed again and again, or failed in a way that is not "
                    "foreseen.",
                    Unit.PER_SECOND,
                    [rate("nearkin_engine_failures_total", HERE, "engine, why")],
                ),
                Panel(
                    "Engines that are left alone",
                    "1 while look-ups leave an engine alone, or try whether it is back.",
                    Unit.NONE,
                    [Query(f"max by (engine) (nearkin_circuit_open_ratio{{{HERE}}})", "{{engine}}")],
                    alarm=1,
                ),
                Panel(
                    "Answers without a part",
                    "Made without evidence, the index, or what is popular.",
                    Unit.PER_SECOND,
                    [rate("nearkin_lookups_degraded_total", HERE, "part")],
                ),
                Panel(
                    "Decisions by hand",
                    "How many are in force; stale is 1 while the file that says them cannot be used.",
                    Unit.COUNT,
                    [
                        Query(f"max by (kind) (nearkin_curation_decisions{{{HERE}}})", "{{kind}}"),
                        Query(f"max(nearkin_curation_stale_ratio{{{HERE}}})", "stale"),
                    ],
                ),
            ],
        ),
        (
            "The log of answers",
            [
                Panel(
                    "Answers that were logged",
                    "In lookups.v1.",
                    Unit.PER_SECOND,
                    [rate("nearkin_lookups_logged_total", HERE, legend="logged")],
                ),
                Panel(
                    "Answers that were not logged",
                    "By reason. Not sampled and repeated are by design; the others are missing.",
                    Unit.PER_SECOND,
                    [rate("nearkin_lookups_unlogged_total", HERE, "reason")],
                ),
                Panel(
                    "Items that wait to be logged",
                    "NEARKIN_LOOKUP_LOG_BUFFER at most.",
                    Unit.COUNT,
                    [Query(f"nearkin_lookup_log_waiting_items{{{HERE}}}", "{{instance}}")],
                ),
                Panel(
                    "Time from an answer to its log",
                    "Nothing waits for it.",
                    Unit.SECONDS,
                    percentiles("nearkin_lookup_log_seconds", HERE),
                ),
            ],
        ),
        machine("lookup"),
    ],
)

WATCHER = Board(
    MONITOR,
    "Nearkin: monitor",
    "What watches the others from outside, and every process that Prometheus reads.",
    chosen(".*"),
    [
        state(".*"),
        (
            "What it sees",
            [
                Panel(
                    "Parts that answer",
                    "What the monitor gets an answer from.",
                    Unit.NONE,
                    [Query("nearkin_monitor_part_up", "{{part}}")],
                    kind="up",
                ),
                Panel(
                    "Oldest event that waits",
                    "By lane: what no group has acknowledged.",
                    Unit.SECONDS,
                    [Query("nearkin_monitor_oldest_age_seconds", "{{lane}}")],
                    attention=30,
                    alarm=120,
                ),
                Panel(
                    "Lag by partition",
                    "Events on the broker that a group has not acknowledged.",
                    Unit.COUNT,
                    [
                        Query(
                            "sum by (group, topic, partition) (nearkin_monitor_lag_events)",
                            "{{group}} {{topic}} {{partition}}",
                        )
                    ],
                ),
                Panel(
                    "Probes by outcome",
                    "Proved within time, late, or failed.",
                    Unit.PER_SECOND,
                    [rate("nearkin_monitor_probes_total", "", "outcome")],
                ),
                Panel(
                    "Time of a probe",
                    "From publishing until the probe was found, and from its deletion until it was gone.",
                    Unit.SECONDS,
                    percentiles("nearkin_monitor_probe_seconds", "", "step"),
                    attention=1,
                    alarm=5,
                ),
                Panel(
                    "Until a certificate expires",
                    "Of those that are shown where the monitor connects by TLS; empty where it does nowhere.",
                    Unit.SECONDS,
                    [
                        Query(
                            "nearkin_monitor_certificate_expires_timestamp_seconds - time()",
                            "{{part}} {{address}}",
                        )
                    ],
                    alarm=14 * 86_400,
                    least=True,
                ),
                Panel(
                    "Since the last probe",
                    "Since one was seen to come and to go. A little more than their interval is normal.",
                    Unit.SECONDS,
                    [Query("time() - nearkin_monitor_last_probe_timestamp_seconds", "{{instance}}")],
                    attention=120,
                    alarm=600,
                ),
            ],
        ),
        machine(".*"),
    ],
)
