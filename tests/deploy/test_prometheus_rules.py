import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from deploy.grafana.__main__ import boards, files
from deploy.grafana.runbooks import PAGE, read_runbooks
from deploy.prometheus.alerts import ALERTS
from deploy.prometheus.render import dump, recording_rules
from prometheus_client import CollectorRegistry

from nearkin.ops.metrics import Metrics

FOLDER = Path(__file__).parents[2] / "deploy" / "prometheus"


def run(promtool: str, *arguments: str, folder: Path = FOLDER) -> str:
    done = subprocess.run([promtool, *arguments], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def alerting() -> Iterator[dict]:
    (group,) = yaml.safe_load((FOLDER / "rules" / "alerts.yml").read_text())["groups"]
    yield from group["rules"]


def test_promtool_takes_the_configuration_and_the_rules(promtool):
    assert "SUCCESS" in run(promtool, "check", "config", "prometheus.yml")
    assert f"SUCCESS: {len(ALERTS)} rules found" in run(promtool, "check", "rules", "rules/alerts.yml")


@pytest.mark.parametrize("played", ["burn_rates.yml", "slow_burns.yml"])
def test_the_burn_of_the_objective_is_told_over_a_long_and_a_short_window(promtool, tmp_path, played):
    rules = {"groups": [{"name": "alerts", "rules": [rule | {"annotations": {}} for rule in alerting()]}]}
    (tmp_path / "alerts.yml").write_text(yaml.safe_dump(rules))
    (tmp_path / "recording.yml").write_text(dump(recording_rules()))
    (tmp_path / played).write_text((Path(__file__).parent / played).read_text())
    assert "SUCCESS" in run(promtool, "test", "rules", played, folder=tmp_path)


def test_what_is_evaluated_is_what_the_code_says():
    for path, made in files():
        if path.suffix == ".yml":
            assert path.read_text() == made, f"run `make dashboards`: {path.name} is not what it makes"


def test_every_alert_says_what_is_wrong_since_when_who_is_told_and_what_to_do():
    runbooks = read_runbooks(PAGE.read_text())
    assert list(runbooks) == [alert.name for alert in ALERTS]
    for rule in alerting():
        assert rule["labels"]["severity"] in ("page", "ticket")
        assert re.fullmatch(r"\d+[smh]", rule["for"])
        assert {"summary", "description", "runbook", "runbook_url", "dashboard_url"} == rule["annotations"].keys()
        assert rule["annotations"]["runbook"] == f"docs/operations.md#{rule['alert'].lower()}"
        runbook = runbooks[rule["alert"]]
        assert runbook.startswith("Page." if rule["labels"]["severity"] == "page" else "Ticket.")
        for word in ("**Means**", "**Clears**"):
            assert word in runbook, f"{rule['alert']}: its runbook does not say {word}"


def test_a_runbook_names_no_panel_that_there_is_not():
    titles = {panel.title for board in boards() for _, panels in board.rows for panel in panels}
    for alert, runbook in read_runbooks(PAGE.read_text()).items():
        for named in re.findall(r"(?<!\*)\*([A-Z][^*]+)\*(?!\*)", " ".join(runbook.split())):
            assert any(title.startswith(named) for title in titles), f"{alert} names the panel {named!r}"


def test_the_panel_that_an_alert_links_to_shows_what_the_alert_is_about():
    panels = {(b.uid, panel.title): panel for b in boards() for _, ps in b.rows for panel in ps}
    for alert in ALERTS:
        shown = " ".join(query.expr for query in panels[alert.dashboard, alert.panel].queries)
        assert series_of(alert.expr) & series_of(shown), f"{alert.name} and {alert.panel} have no series in common"


def test_no_rule_reads_a_metric_that_there_is_not():
    known = declared()
    for alert in ALERTS:
        assert series_of(alert.expr) <= known, alert.name


def series_of(expr: str) -> set[str]:
    """The metrics that an expression names, without what a histogram adds to them."""
    names = re.findall(r"\bnearkin[_:][\w:]+|\bup\b|\bprocess_\w+", re.sub(r'"[^"]*"', '""', expr))
    return {re.sub(r"_bucket$|(?<=_seconds)_count$|ratio_rate\w+$", "", name) for name in names}


def declared() -> set[str]:
    metrics = Metrics(CollectorRegistry())
    return {name for name, *_ in metrics.declared} | {"up", "nearkin:freshness_errors:"}
