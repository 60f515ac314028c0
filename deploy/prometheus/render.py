"""The rules that Prometheus evaluates, as it reads them: recorded shares of late items, and alerts with their links."""

import re
from collections.abc import Callable, Mapping
from typing import Any

import yaml
from deploy.prometheus.alerts import ALERTS, Alert
from deploy.prometheus.objective import WINDOWS, errors, late_events, late_probes

_MADE = "# Made by `make dashboards` from deploy/prometheus/*.py; change them there.\n"
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}

#: Set in prometheus.yml; taken off again before an alert is sent.
GRAFANA = "{{ $externalLabels.grafana_url }}"


def recording_rules(faster: float = 1.0) -> dict[str, Any]:
    """The recorded shares of late items.

    Args:
        faster: how many times shorter every duration is, for who has no hours to wait.
    """
    rules = [
        {"record": errors(window), "labels": {"sli": sli}, "expr": shorten(expr(window), faster)}
        for window in WINDOWS
        for sli, expr in (("events", late_events), ("probes", late_probes))
    ]
    return {"groups": [{"name": "nearkin-objective", "rules": rules}]}


def alerting_rules(
    panels: Mapping[tuple[str, str], int], runbooks: Callable[[str], str], faster: float = 1.0
) -> dict[str, Any]:
    """The alerts.

    Args:
        panels: ids of panels by dashboard and title.
        runbooks: Grafana's path of an alert's runbook.
        faster: how many times shorter every duration is.
    """

    def rule(alert: Alert) -> dict[str, Any]:
        panel = panels[alert.dashboard, alert.panel]
        return {
            "alert": alert.name,
            "expr": shorten(alert.expr, faster),
            "for": _shortened(alert.hold, faster),
            "labels": {"severity": alert.severity},
            "annotations": {
                "summary": alert.summary,
                "description": alert.description,
                "runbook": f"docs/operations.md#{alert.name.lower()}",
                "runbook_url": f"{GRAFANA}{runbooks(alert.name)}",
                "dashboard_url": f"{GRAFANA}/d/{alert.dashboard}?viewPanel={panel}",
            },
        }

    return {"groups": [{"name": "nearkin", "rules": [rule(alert) for alert in ALERTS]}]}


def shorten(expr: str, faster: float) -> str:
    """An expression whose windows are so many times shorter."""
    return re.sub(r"(\[|offset )(\d+[smhd])", lambda found: found[1] + _shortened(found[2], faster), expr)


def _shortened(duration: str, faster: float) -> str:
    if faster == 1:
        return duration
    return f"{max(1, round(1000 * int(duration[:-1]) * _SECONDS[duration[-1]] / faster))}ms"


class _Readable(yaml.SafeDumper):
    """Writes an expression of several lines as such."""


_Readable.add_representer(
    str,
    lambda dumper, text: dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None),
)


def dump(rules: Mapping[str, Any]) -> str:
    """Rules as Prometheus reads them."""
    return _MADE + yaml.dump(dict(rules), Dumper=_Readable, sort_keys=False, width=120, allow_unicode=True)
