"""Every alert: when it fires, what it says, and the panel that shows it. Its runbook is in docs/operations.md.

`page` wants a person now, because users notice or will. `ticket` wants one on the next working day.
"""

from dataclasses import dataclass
from typing import Literal

from deploy.prometheus.objective import FAST, SLOW, burns

FRESHNESS, EVIDENCE = "nearkin-index-freshness", "nearkin-evidence-freshness"
INDEXER, FEEDBACK, LOOKUP, MONITOR = "nearkin-indexer", "nearkin-feedback", "nearkin-lookup", "nearkin-monitor"

#: Look-ups that the service did not answer, for a reason that is not the caller's.
FAILED = 'code=~"UNAVAILABLE|INTERNAL|DEADLINE_EXCEEDED|UNKNOWN"'

#: Answers that the log should have taken, and did not.
NOT_LOGGED = 'reason=~"buffer_full|unwritable|unsent"'


@dataclass(frozen=True, slots=True)
class Alert:
    """One alert.

    Attributes:
        name: its name, and the heading of its runbook.
        expr: what Prometheus evaluates.
        hold: how long it must hold, as Prometheus writes durations.
        severity: who is told.
        summary: what is wrong, in one line.
        description: what that means here, with figures.
        dashboard: uid of the dashboard that shows it.
        panel: title of the panel there.
    """

    name: str
    expr: str
    hold: str
    severity: Literal["page", "ticket"]
    summary: str
    description: str
    dashboard: str
    panel: str


def _part_down(name: str, part: str, hold: str, severity: Literal["page", "ticket"], summary: str, means: str) -> Alert:
    expr = f'nearkin_monitor_part_up{{part=~"{part}"}} == 0'
    return Alert(
        name,
        expr,
        hold,
        severity,
        summary,
        "The monitor says that {{ $labels.part }} is down. " + means,
        FRESHNESS,
        PARTS,
    )


def _grew(counter: str, by: str) -> str:
    """That a counter grew; where it had not been there before, with the first of them it begins."""
    return f"sum by ({by}) (increase({counter}[15m])) > 0\nor sum by ({by}) ({counter} unless {counter} offset 15m) > 0"


PARTS = "Parts that answer"

ALERTS = (
    Alert(
        "NearkinFreshnessBurnsFast",
        burns(FAST),
        "1m",
        "page",
        "Too many new items are visible late: the month's allowance goes within days",
        "{{ $value | humanizePercentage }} of new items, by {{ $labels.sli }}, were not visible within 5 s over "
        "the last "
        "hours; 1 % is allowed.",
        FRESHNESS,
        "Burn rate of the objective",
    ),
    Alert(
        "NearkinFreshnessBurnsSlowly",
        burns(SLOW),
        "15m",
        "ticket",
        "New items are visible late a little too often: the month's allowance will not last",
        "{{ $value | humanizePercentage }} of new items, by {{ $labels.sli }}, were not visible within 5 s over "
        "the last "
        "days; 1 % is allowed.",
        FRESHNESS,
        "Burn rate of the objective",
    ),
    Alert(
        "NearkinLiveItemsWait",
        'nearkin_monitor_oldest_age_seconds{lane="live"} > 30',
        "1m",
        "page",
        "New items are not indexed",
        "The oldest event of items.v1 that no indexer has acknowledged is {{ $value | humanizeDuration }} old.",
        FRESHNESS,
        "Oldest event that is not indexed",
    ),
    Alert(
        "NearkinBulkItemsWait",
        'nearkin_monitor_oldest_age_seconds{lane="bulk"} > 3600',
        "10m",
        "ticket",
        "A bulk load does not get on",
        "The oldest event of items-bulk.v1 that no indexer has acknowledged is {{ $value | humanizeDuration }} old.",
        FRESHNESS,
        "Oldest event that is not indexed",
    ),
    Alert(
        "NearkinFeedbackWaits",
        'nearkin_monitor_oldest_age_seconds{lane=~"feedback|visits"} > 120',
        "2m",
        "page",
        "Feedback is not counted",
        "The oldest event of {{ $labels.lane }} that is not counted is {{ $value | humanizeDuration }} old.",
        EVIDENCE,
        "Oldest event that is not counted",
    ),
    Alert(
        "NearkinProbesFail",
        'sum(rate(nearkin_monitor_probes_total{outcome="failed"}[5m])) / '
        "sum(rate(nearkin_monitor_probes_total[5m])) > 0.5",
        "1m",
        "page",
        "What the monitor publishes is not found",
        "{{ $value | humanizePercentage }} of the last probe items were not found in time, or not gone after "
        "their deletion.",
        FRESHNESS,
        "Probes by outcome",
    ),
    Alert(
        "NearkinMonitorDown",
        'absent(nearkin_monitor_part_up) or absent(up{job="monitor"} == 1)',
        "2m",
        "page",
        "Nobody watches: the monitor is down",
        "Prometheus gets nothing from the monitor, so no alert about lag, age, probes or dead parts can fire.",
        MONITOR,
        "Processes that answer",
    ),
    _part_down(
        "NearkinBrokerDown",
        "broker",
        "1m",
        "page",
        "Kafka does not answer",
        "Producers cannot publish, and nothing new is indexed or counted. Look-ups go on.",
    ),
    _part_down(
        "NearkinIndexDown",
        "index",
        "1m",
        "page",
        "Qdrant does not answer",
        "Look-ups are answered from evidence alone or fail, and new items wait on the broker.",
    ),
    _part_down(
        "NearkinRedisDown",
        "redis",
        "1m",
        "page",
        "Redis does not answer",
        "Look-ups are answered by content alone, and feedback waits on the broker.",
    ),
    _part_down(
        "NearkinLookupDown",
        "lookup",
        "1m",
        "page",
        "Look-ups are not answered",
        "No look-up server says that it serves.",
    ),
    _part_down(
        "NearkinIndexerDown",
        "indexer-.*",
        "1m",
        "page",
        "Nobody indexes",
        "Events of its lane wait on the broker; nothing is lost while the topic's retention lasts.",
    ),
    _part_down(
        "NearkinFeedbackDown",
        "feedback",
        "1m",
        "page",
        "Nobody counts feedback",
        "Feedback and visits wait on the broker; look-ups go on with what was counted.",
    ),
    Alert(
        "NearkinProcessDown",
        'up{job=~"indexer-live|indexer-bulk|feedback|lookup"} == 0',
        "2m",
        "ticket",
        "A process does not answer Prometheus",
        "{{ $labels.instance }} of {{ $labels.job }} is dead or hangs. Others of its kind may do its work.",
        MONITOR,
        "Processes that answer",
    ),
    Alert(
        "NearkinProcessWaits",
        "nearkin_up == 0",
        "5m",
        "ticket",
        "A process runs, and is not ready",
        "{{ $labels.instance }} of {{ $labels.job }} waits for something that it needs; its /ready and its log "
        "name it.",
        MONITOR,
        "Processes that are ready",
    ),
    Alert(
        "NearkinRetries",
        "60 * sum by (job, engine) (rate(nearkin_retries_total[5m])) > 0",
        "5m",
        "ticket",
        "An engine keeps failing, and work is tried again and again",
        "{{ $labels.job }} tries again {{ $value | humanize }} times a minute because of {{ $labels.engine }}.",
        FRESHNESS,
        "Tries repeated by engine",
    ),
    Alert(
        "NearkinDeadLetters",
        _grew("nearkin_dead_letters_total", "topic"),
        "0s",
        "ticket",
        "Events were refused",
        "Events of {{ $labels.topic }} went to its dead-letter topic over the last 15 minutes: they are not served.",
        FRESHNESS,
        "Dead letters by reason",
    ),
    Alert(
        "NearkinPoisonFlood",
        "sum by (topic) (rate(nearkin_dead_letters_total[5m]))\n"
        "/ sum by (topic) (rate(nearkin_events_total[5m])) > 0.05",
        "5m",
        "page",
        "A producer sends many events that cannot be served",
        "{{ $value | humanizePercentage }} of the events of {{ $labels.topic }} are refused.",
        FRESHNESS,
        "Dead letters by reason",
    ),
    Alert(
        "NearkinEventsLost",
        "\nor ".join(
            _grew(metric, "job, topic")
            for metric in (
                "nearkin_skipped_offsets_total",
                "nearkin_feedback_expired_total",
                "nearkin_guards_ahead_offsets_total",
            )
        ),
        "0s",
        "page",
        "Events of the broker may never be served",
        "{{ $value | humanize }} offsets of {{ $labels.topic }} were gone, or taken for counted, when {{ "
        "$labels.job }} came "
        "to them.",
        FRESHNESS,
        "Offsets that were never served",
    ),
    Alert(
        "NearkinEvidenceWentBack",
        "increase(nearkin_evidence_regressions_total[15m]) > 0",
        "0s",
        "ticket",
        "Redis came back without what it had counted",
        "Evidence is counted again from the log; until then look-ups know less than they did.",
        EVIDENCE,
        "Evidence that was lost or is missing",
    ),
    Alert(
        "NearkinClocksDisagree",
        "sum by (job, stage) (rate(nearkin_freshness_clamped_total[5m])) > 0.1",
        "5m",
        "ticket",
        "Clocks disagree, so ages are wrong",
        "{{ $value | humanize }} events a second are younger than 0 s at {{ $labels.stage }} in {{ $labels.job }}.",
        FRESHNESS,
        "Ages below zero",
    ),
    Alert(
        "NearkinLookupsShed",
        'sum(rate(nearkin_lookups_total{code="RESOURCE_EXHAUSTED"}[5m])) / sum(rate(nearkin_lookups_total[5m])) > 0.01',
        "2m",
        "page",
        "Look-ups are refused for want of room",
        "{{ $value | humanizePercentage }} of look-ups are refused, as the servers work on as many as they may.",
        LOOKUP,
        "Share of look-ups without an answer",
    ),
    Alert(
        "NearkinLookupsFail",
        f"sum(rate(nearkin_lookups_total{{{FAILED}}}[5m])) / sum(rate(nearkin_lookups_total[5m])) > 0.01",
        "2m",
        "page",
        "Look-ups fail",
        "{{ $value | humanizePercentage }} of look-ups are not answered, through no fault of their callers.",
        LOOKUP,
        "Share of look-ups without an answer",
    ),
    Alert(
        "NearkinLookupsSlow",
        'histogram_quantile(0.99, sum by (le) (rate(nearkin_lookup_seconds_bucket{stage="total"}[5m]))) > 0.25',
        "5m",
        "ticket",
        "Look-ups are slow",
        "One look-up in a hundred takes more than {{ $value | humanizeDuration }}.",
        LOOKUP,
        "Time of a look-up",
    ),
    Alert(
        "NearkinAnswersDegraded",
        "sum by (part) (rate(nearkin_lookups_degraded_total[5m]))\n"
        "/ on () group_left () sum(rate(nearkin_lookups_answered_total[5m])) > 0.05",
        "5m",
        "ticket",
        "Answers do without a part",
        "{{ $value | humanizePercentage }} of answers are made without {{ $labels.part }}.",
        EVIDENCE,
        "Share of answers without a part",
    ),
    Alert(
        "NearkinAnswersUnlogged",
        f"sum by (reason) (rate(nearkin_lookups_unlogged_total{{{NOT_LOGGED}}}[5m])) > 0",
        "5m",
        "ticket",
        "Answers are missing from lookups.v1",
        "{{ $value | humanize }} answers a second are not logged ({{ $labels.reason }}): what is shown is not "
        "learned from.",
        LOOKUP,
        "Answers that were not logged",
    ),
    Alert(
        "NearkinCertificateExpires",
        "nearkin_monitor_certificate_expires_timestamp_seconds - time() < 14 * 86400",
        "5m",
        "ticket",
        "A certificate expires within two weeks",
        "What {{ $labels.part }} shows at {{ $labels.address }} expires in {{ $value | humanizeDuration }}.",
        MONITOR,
        "Until a certificate expires",
    ),
    Alert(
        "NearkinCurationStale",
        "nearkin_curation_stale_ratio == 1",
        "5m",
        "ticket",
        "The file of decisions by hand cannot be used",
        "{{ $labels.instance }} goes on with an older one: what was blocked or pinned since is not in force.",
        LOOKUP,
        "Decisions by hand",
    ),
)
