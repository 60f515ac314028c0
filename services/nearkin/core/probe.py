"""Probe items: published, looked up and deleted by the monitor alone, so that freshness is seen from outside.

They have ids of their own, and are offered in a market of their own. Look-ups return them to whoever asks for that
market, which is the monitor, and nothing else then; to everybody else they are as hidden items are.
"""

#: Every probe's id begins so, and no other item's.
PROBE_PREFIX = "nearkin-probe-"

#: The market that probes are offered in.
PROBE_MARKET = "nearkin-probe"


def is_probe(item_id: str) -> bool:
    """Whether an id is a probe's."""
    return item_id.startswith(PROBE_PREFIX)
