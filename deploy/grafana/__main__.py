"""Writes the dashboards that Grafana is provisioned with, and the rules of Prometheus that link to them.

`make dashboards`, or `python -m deploy.grafana`.
"""

import json
from collections.abc import Iterator
from pathlib import Path

from deploy.grafana import evidence_freshness, index_freshness, services
from deploy.grafana.panels import Board, build, runbook_path
from deploy.grafana.runbooks import runbooks_board
from deploy.prometheus.render import alerting_rules, dump, recording_rules
from grafana_foundation_sdk.cog.encoder import JSONEncoder

GRAFANA, PROMETHEUS = Path(__file__).parent, Path(__file__).parents[1] / "prometheus"


def boards() -> list[Board]:
    """Every dashboard, the one to look at first at the head."""
    return [
        index_freshness.BOARD,
        evidence_freshness.BOARD,
        services.INDEXERS,
        services.FEEDBACK_WORKER,
        services.LOOKUPS,
        services.WATCHER,
        runbooks_board(),
    ]


def panel_ids() -> dict[tuple[str, str], int]:
    """The ids of all panels, by dashboard and title."""
    return {(board.uid, title): number for board in boards() for title, number in board.panel_ids().items()}


def files(faster: float = 1.0) -> Iterator[tuple[Path, str]]:
    """What is written where.

    Args:
        faster: how many times shorter every duration of the rules is, for who has no hours to wait.
    """
    runbooks = runbooks_board().panel_ids()
    for board in boards():
        made = json.dumps(build(board, runbooks), cls=JSONEncoder, indent=2, sort_keys=True, ensure_ascii=False)
        yield GRAFANA / "dashboards" / f"{board.uid}.json", made + "\n"
    yield PROMETHEUS / "rules" / "recording.yml", dump(recording_rules(faster))
    alerts = alerting_rules(panel_ids(), lambda alert: runbook_path(alert, runbooks), faster)
    yield PROMETHEUS / "rules" / "alerts.yml", dump(alerts)


if __name__ == "__main__":
    for path, content in files():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")
