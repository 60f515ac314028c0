"""Evidence freshness: how long feedback takes to count, what counts, and what of it look-ups use."""

from deploy.grafana.panels import EACH, Board, Panel, Query, Unit, Variable, percentiles, rate
from deploy.prometheus.alerts import EVIDENCE

TOPIC = 'job="feedback", topic=~"$topic"'

BOARD = Board(
    EVIDENCE,
    "Nearkin: evidence freshness",
    "How long feedback takes to count, what counts, and what of it look-ups use.",
    [Variable("topic", 'nearkin_events_total{job="feedback"}', "Topic")],
    [
        (
            "How fresh",
            [
                Panel(
                    "Age when counted",
                    "Age of an event of feedback when Redis has applied it, from when it occurred, as its "
                    "producer says.",
                    Unit.SECONDS,
                    percentiles(
                        "nearkin_evidence_freshness_seconds", 'stage="occurred_to_applied"', of=(0.5, 0.9, 0.99)
                    ),
                ),
                Panel(
                    "Age by stage, 99th percentile",
                    "What each step adds. Late events count with their whole lateness, in the first step.",
                    Unit.SECONDS,
                    percentiles("nearkin_evidence_freshness_seconds", "", "stage", (0.99,)),
                ),
                Panel(
                    "Oldest event that is not counted",
                    "From the broker's side, so that it grows while the worker hangs or is dead.",
                    Unit.SECONDS,
                    [Query('nearkin_monitor_oldest_age_seconds{lane=~"feedback|visits"}', "{{lane}}")],
                    attention=30,
                    alarm=120,
                ),
                Panel(
                    "Lag",
                    "Events on the broker that the group has not acknowledged.",
                    Unit.COUNT,
                    [Query('sum by (topic) (nearkin_monitor_lag_events{topic=~"feedback.*|visits.*"})', "{{topic}}")],
                ),
                Panel(
                    "Lag of the guards",
                    "Events on the broker that some shard of the evidence has not passed. The guards in Redis are the "
                    "truth about progress; the group's offsets only follow.",
                    Unit.COUNT,
                    [Query('sum by (topic) (nearkin_guard_lag_events{topic=~"$topic"})', "{{topic}}")],
                ),
                Panel(
                    "Time of one round trip to Redis",
                    "Of the script calls that apply a batch.",
                    Unit.SECONDS,
                    percentiles("nearkin_evidence_apply_seconds"),
                ),
            ],
        ),
        (
            "What counts",
            [
                Panel(
                    "Events by outcome",
                    "Applied counts. Repeated came before within the window, clamped is one user who did the same too "
                    "often: both are dropped.",
                    Unit.PER_SECOND,
                    [rate("nearkin_events_total", TOPIC, "topic, outcome")],
                ),
                Panel(
                    "Share of duplicates dropped",
                    "Of events that came again within the window, and of users who did the same too often.",
                    Unit.SHARE,
                    [
                        Query(
                            f'sum by (outcome) (rate(nearkin_events_total{{{TOPIC}, outcome=~"repeated|clamped"'
                            f"}}[{EACH}]))\n"
                            f"/ on () group_left () sum(rate(nearkin_events_total{{{TOPIC}}}[{EACH}]))",
                            "{{outcome}}",
                        )
                    ],
                    attention=0.2,
                ),
                Panel(
                    "Batches by outcome",
                    "Of one shard each. Duplicates were counted before a crash; mismatches are made anew.",
                    Unit.PER_SECOND,
                    [rate("nearkin_evidence_batches_total", "", "outcome")],
                ),
                Panel(
                    "Pairs of an anchor",
                    "How many pairs are remembered of an anchor, on a sample.",
                    Unit.COUNT,
                    percentiles("nearkin_evidence_pairs"),
                ),
                Panel(
                    "Actions without a slate",
                    "They count apart, as nothing was expected of them. Many of them: a surface does not say "
                    "what it showed.",
                    Unit.PER_SECOND,
                    [rate("nearkin_unexposed_actions_total", legend="without a slate")],
                ),
                Panel(
                    "Evidence that was lost or is missing",
                    "Times that Redis came back without what it had counted; offsets that the broker dropped "
                    "before they "
                    "were counted; offsets that were taken for counted. None is normal.",
                    Unit.COUNT,
                    [
                        Query(f"sum(increase({name}[{EACH}])) or vector(0)", legend)
                        for name, legend in (
                            ("nearkin_evidence_regressions_total", "Redis went back"),
                            ("nearkin_feedback_expired_total", "expired"),
                            ("nearkin_guards_ahead_offsets_total", "taken for counted"),
                        )
                    ],
                    alarm=1,
                ),
                Panel(
                    "Expected clicks by position",
                    "The position priors in force: what one exposure is expected to bring.",
                    Unit.SHARE,
                    [
                        Query(
                            'max by (surface, position) (nearkin_position_prior_ratio{position=~"1|2|3|5|10"})',
                            "{{surface}} {{position}}",
                        )
                    ],
                ),
                Panel(
                    "Version of the position priors",
                    "It grows each time that priors are learned; 0 is the default.",
                    Unit.NONE,
                    [Query("max(nearkin_position_priors_version)", "version")],
                ),
            ],
        ),
        (
            "What look-ups make of it",
            [
                Panel(
                    "Share of answers without a part",
                    "Answers that had to do without evidence, the index, or what is popular.",
                    Unit.SHARE,
                    [
                        Query(
                            f"sum by (part) (rate(nearkin_lookups_degraded_total[{EACH}]))\n"
                            f"/ on () group_left () sum(rate(nearkin_lookups_answered_total[{EACH}]))",
                            "{{part}}",
                        )
                    ],
                    attention=0.01,
                    alarm=0.05,
                ),
                Panel(
                    "Share of answers that explore",
                    "By the policy of the last draw: shuffled, or with a new item in a lower place. By default 2 "
                    "% and 5 %.",
                    Unit.SHARE,
                    [
                        Query(
                            f'sum by (policy) (rate(nearkin_lookups_answered_total{{policy!="greedy"}}[{EACH}]))\n'
                            f"/ on () group_left () sum(rate(nearkin_lookups_answered_total[{EACH}]))",
                            "{{policy}}",
                        )
                    ],
                ),
            ],
        ),
    ],
)
