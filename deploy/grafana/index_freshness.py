"""Index freshness: how long new items take to be found, and what holds them up. The first page to look at."""

from deploy.grafana.panels import EACH, Board, Panel, Query, Unit, Variable, percentiles, rate
from deploy.prometheus.alerts import FRESHNESS, PARTS
from deploy.prometheus.objective import ALLOWED, errors

LANE = 'lane=~"$lane"'
ITEMS = 'topic=~"items.*"'

BOARD = Board(
    FRESHNESS,
    "Nearkin: index freshness",
    "How long new items take to be found, by what the indexers see and by what the monitor sees from outside.",
    [Variable("lane", "nearkin_freshness_seconds_count", "Lane")],
    [
        (
            "The objective: 99 % of live items are visible within 5 s",
            [
                Panel(
                    "Visible within 5 s, over an hour",
                    "The share of live items over the last hour, as the indexers saw (events) and as the monitor "
                    "did (probes).",
                    Unit.SHARE,
                    [Query(f"1 - {errors('1h')}", "{{sli}}")],
                    alarm=1 - ALLOWED,
                    least=True,
                    kind="figures",
                    width=6,
                ),
                Panel(
                    "Visible within 5 s, over three days",
                    "The same over three days: whether the month's allowance will last.",
                    Unit.SHARE,
                    [Query(f"1 - {errors('3d')}", "{{sli}}")],
                    alarm=1 - ALLOWED,
                    least=True,
                    kind="figures",
                    width=6,
                ),
                Panel(
                    "Since the last probe",
                    "Time since a probe was last seen to come and to go. A little more than their interval is normal.",
                    Unit.SECONDS,
                    [Query("time() - max(nearkin_monitor_last_probe_timestamp_seconds)", "last probe")],
                    attention=120,
                    alarm=600,
                    kind="figures",
                    width=6,
                ),
                Panel(
                    "Oldest item waiting now",
                    "Age of the oldest event that no indexer has acknowledged, seen from the broker's side.",
                    Unit.SECONDS,
                    [Query(f"nearkin_monitor_oldest_age_seconds{{{LANE}}}", "{{lane}}")],
                    attention=5,
                    alarm=30,
                    kind="figures",
                    width=6,
                ),
                Panel(
                    "Burn rate of the objective",
                    "How many times faster than allowed late items use up the allowance. 1 lasts just as long as the "
                    "objective's month; 14.4 for an hour takes 2 % of it.",
                    Unit.TIMES,
                    [
                        Query(f"{errors(window)} / {ALLOWED:g}", f"{{{{sli}}}} {window}")
                        for window in ("5m", "1h", "6h", "3d")
                    ],
                    attention=1,
                    alarm=14.4,
                    width=24,
                ),
            ],
        ),
        (
            "How fresh",
            [
                Panel(
                    "Age when visible",
                    "Age of an item when a search first returned it, from when it occurred. Sampled, about one a "
                    "second.",
                    Unit.SECONDS,
                    percentiles(
                        "nearkin_freshness_seconds",
                        f'stage="occurred_to_visible", {LANE}',
                        "lane",
                        (0.5, 0.9, 0.99),
                    ),
                    attention=1,
                    alarm=5,
                ),
                Panel(
                    "Age by stage, 99th percentile",
                    "What each step adds. The slowest step is where to look.",
                    Unit.SECONDS,
                    percentiles("nearkin_freshness_seconds", LANE, "stage", (0.99,)),
                    alarm=5,
                ),
                Panel(
                    "Age by stage, median",
                    "The same for the item in the middle.",
                    Unit.SECONDS,
                    percentiles("nearkin_freshness_seconds", LANE, "stage", (0.5,)),
                ),
                Panel(
                    "Oldest event that is not indexed",
                    "From the broker's side, so that it grows while an indexer hangs or is dead.",
                    Unit.SECONDS,
                    [Query(f"nearkin_monitor_oldest_age_seconds{{{LANE}}}", "{{lane}}")],
                    attention=5,
                    alarm=30,
                ),
                Panel(
                    "Lag",
                    "Events on the broker that a group has not acknowledged.",
                    Unit.COUNT,
                    [Query(f"sum by (topic) (nearkin_monitor_lag_events{{{ITEMS}}})", "{{topic}}")],
                ),
                Panel(
                    "Events by outcome",
                    "What became of events of items. Superseded changed nothing: it came again, or is older than "
                    "what is known.",
                    Unit.PER_SECOND,
                    [rate("nearkin_events_total", ITEMS, "topic, outcome")],
                ),
            ],
        ),
        (
            "Probes and parts",
            [
                Panel(
                    "Probes by outcome",
                    "Items that the monitor publishes, looks up until they are found, deletes and looks up until "
                    "they are gone.",
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
                    PARTS,
                    "What the monitor gets an answer from.",
                    Unit.NONE,
                    [Query("nearkin_monitor_part_up", "{{part}}")],
                    kind="up",
                ),
                Panel(
                    "Points in the index",
                    "Items that are served, and tombstones that keep deleted ones from coming back.",
                    Unit.COUNT,
                    [Query("nearkin_monitor_index_points", "{{kind}}")],
                ),
            ],
        ),
        (
            "What takes time",
            [
                Panel(
                    "Time of one encoder call",
                    "One call encodes a batch of contents.",
                    Unit.SECONDS,
                    percentiles("nearkin_encode_seconds", LANE, "lane"),
                ),
                Panel(
                    "Time of one write to the index",
                    "A write returns when a search sees it.",
                    Unit.SECONDS,
                    percentiles("nearkin_upsert_seconds", LANE, "lane"),
                ),
                Panel(
                    "Time of reading what the index holds",
                    "Of the items of a batch, before they are written.",
                    Unit.SECONDS,
                    percentiles("nearkin_index_read_seconds", LANE, "lane"),
                ),
                Panel(
                    "Tries repeated by engine",
                    "Temporary failures that are tried again in place, while the partition waits. None is normal.",
                    Unit.PER_SECOND,
                    [rate("nearkin_retries_total", "", "job, engine")],
                ),
            ],
        ),
        (
            "What is refused, or odd",
            [
                Panel(
                    "Dead letters by reason",
                    "Events that cannot be served. `nearkin dlq` shows them and sends them again.",
                    Unit.PER_SECOND,
                    [rate("nearkin_dead_letters_total", "", "topic, reason")],
                ),
                Panel(
                    "Dead letters that are kept",
                    "The newest records of the dead-letter topics, by reason.",
                    Unit.COUNT,
                    [Query("nearkin_monitor_dead_letters", "{{topic}} {{reason}}")],
                ),
                Panel(
                    "Ages below zero",
                    "Events that are younger than 0 s, because clocks disagree; they count as 0 s.",
                    Unit.PER_SECOND,
                    [rate("nearkin_freshness_clamped_total", "", "job, stage")],
                    alarm=0.1,
                ),
                Panel(
                    "Offsets that were never served",
                    "Gone from the broker before somebody came to them, or taken for counted. None is normal.",
                    Unit.COUNT,
                    [
                        Query(f"sum(increase({name}[{EACH}])) or vector(0)", legend)
                        for name, legend in (
                            ("nearkin_skipped_offsets_total", "skipped"),
                            ("nearkin_feedback_expired_total", "feedback expired"),
                            ("nearkin_guards_ahead_offsets_total", "taken for counted"),
                        )
                    ],
                    alarm=1,
                ),
            ],
        ),
        (
            "Look-ups meanwhile",
            [
                Panel(
                    "Look-ups by status",
                    "Calls by gRPC status code.",
                    Unit.PER_SECOND,
                    [rate("nearkin_lookups_total", "", "code")],
                ),
                Panel(
                    "Time of a look-up",
                    "From when a call came in to when its answer went out.",
                    Unit.SECONDS,
                    percentiles("nearkin_lookup_seconds", 'stage="total"', of=(0.5, 0.9, 0.99)),
                    alarm=0.25,
                ),
            ],
        ),
    ],
)
