"""The objective of freshness: 99 % of live items are visible within 5 s, and how fast its allowance is used up.

It is measured twice. `sli="events"` is what the indexers saw of their own samples: real items, but a dead indexer says
nothing. `sli="probes"` is what the monitor saw from outside, which goes on while the indexer is dead. Alerts and panels
read both under one name, and the worse one speaks.

Windows and factors are those of the SRE workbook, chapter 5, "Multiwindow, multi-burn-rate alerts": the long window
says that enough of the allowance is gone to matter, the short one that it still goes.
"""

#: The share of items that may be late.
ALLOWED = 0.01

#: Seconds, as the bucket of the histograms is called.
WITHIN = "5.0"

WINDOWS = ("5m", "30m", "1h", "2h", "6h", "1d", "3d")

#: By urgency, how many times faster than allowed, over the long and the short window.
FAST = ((14.4, "1h", "5m"), (6, "6h", "30m"))
SLOW = ((3, "1d", "2h"), (1, "3d", "6h"))


def errors(window: str) -> str:
    """The name of the recorded share of items that were late in a window."""
    return f"nearkin:freshness_errors:ratio_rate{window}"


def late_events(window: str) -> str:
    """The share of sampled live items that the indexers saw late, or not at all."""
    visible = 'stage="occurred_to_visible", lane="live"'
    return (
        f'1 - sum(rate(nearkin_freshness_seconds_bucket{{{visible}, le="{WITHIN}"}}[{window}]))\n'
        f"/ (\n"
        f"  sum(rate(nearkin_freshness_seconds_count{{{visible}}}[{window}]))\n"
        f'  + sum(rate(nearkin_visible_unproved_total{{lane="live"}}[{window}]))\n'
        f")"
    )


def late_probes(window: str) -> str:
    """The share of the monitor's probes that were visible late, or not at all."""
    return (
        f'1 - sum(rate(nearkin_monitor_probe_seconds_bucket{{step="visible", le="{WITHIN}"}}[{window}]))\n'
        f"/ sum(rate(nearkin_monitor_probes_total[{window}]))"
    )


def burns(pairs: tuple[tuple[float, str, str], ...]) -> str:
    """The condition that the allowance burns too fast over a long window, and still does over its short one."""
    return "\nor\n".join(
        f"({errors(long)} > {factor:g} * {ALLOWED:g} and {errors(short)} > {factor:g} * {ALLOWED:g})"
        for factor, long, short in pairs
    )
