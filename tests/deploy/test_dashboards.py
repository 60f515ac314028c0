import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from deploy.grafana.__main__ import boards, files
from deploy.grafana.panels import RUNBOOKS
from deploy.prometheus.alerts import ALERTS
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard

from deploy.compose_file import SERVICES
from deploy.test_prometheus_rules import declared, series_of

FOLDER = Path(__file__).parents[2] / "deploy" / "grafana"
PATHS = sorted((FOLDER / "dashboards").glob("*.json"))

#: What prometheus_client tells of every process, in the names of its own.
OF_PROCESSES = re.compile("process_")


def read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text())


def panels(dashboard: dict[str, Any]) -> list[dict[str, Any]]:
    return [panel for panel in dashboard["panels"] if panel["type"] not in ("row", "text")]


def test_what_is_provisioned_is_what_the_code_says():
    made = {path: content for path, content in files() if path.suffix == ".json"}
    assert sorted(made) == PATHS, "run `make dashboards`, and remove what it does not make any more"
    for path, content in made.items():
        assert path.read_text() == content, f"run `make dashboards`: {path.name} is not what it makes"


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_grafanas_own_types_read_a_dashboard_and_write_the_same(path):
    register_default_plugins()
    again = json.dumps(Dashboard.from_json(read(path)), cls=JSONEncoder)
    assert json.loads(again) == read(path)


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_panels_lie_beside_each_other_and_each_has_an_id_of_its_own(path):
    shown = read(path)["panels"]
    assert len({panel["id"] for panel in shown}) == len(shown)
    taken: set[tuple[int, int]] = set()
    for panel in shown:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert max(x for x, _ in cells) < 24, panel["title"]
        assert not cells & taken, f"{panel['title']} lies on another panel"
        taken |= cells


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_a_panel_says_what_it_shows_in_which_unit_and_asks_what_there_is(path):
    dashboard = read(path)
    variables = {"datasource", "__rate_interval"} | {each["name"] for each in dashboard["templating"].get("list", [])}
    known = declared()
    for panel in panels(dashboard):
        assert panel["description"].endswith("."), panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]
        assert panel["datasource"]["uid"] == "${datasource}"
        for target in panel["targets"]:
            assert target["legendFormat"]
            assert set(re.findall(r"\$(\w+)", target["expr"])) <= variables, panel["title"]
            asked = {name for name in series_of(target["expr"]) if not OF_PROCESSES.match(name)}
            assert asked <= known, f"{panel['title']} asks for {asked - known}"


def test_a_panel_that_an_alert_names_leads_to_its_runbook():
    runbooks = {panel["title"]: panel["id"] for panel in read(FOLDER / "dashboards" / f"{RUNBOOKS}.json")["panels"]}
    assert list(runbooks) == [alert.name for alert in ALERTS]
    shown = {board.uid: read(FOLDER / "dashboards" / f"{board.uid}.json") for board in boards()}
    for alert in ALERTS:
        (panel,) = [each for each in panels(shown[alert.dashboard]) if each["title"] == alert.panel]
        links = {link["title"]: link["url"] for link in panel["links"]}
        assert links[f"Runbook: {alert.name}"] == f"/d/{RUNBOOKS}?viewPanel={runbooks[alert.name]}"


def test_grafana_finds_what_is_provisioned_where_compose_puts_it():
    mounted = {there: here for here, there, *_ in (mount.split(":") for mount in SERVICES["grafana"]["volumes"])}
    provisioning = mounted["/etc/grafana/provisioning"]
    (provider,) = yaml.safe_load((FOLDER / "provisioning" / "dashboards" / "nearkin.yml").read_text())["providers"]
    assert provisioning == "./deploy/grafana/provisioning"
    assert mounted[provider["options"]["path"]] == "./deploy/grafana/dashboards"
    (source,) = yaml.safe_load((FOLDER / "provisioning" / "datasources" / "prometheus.yml").read_text())["datasources"]
    assert source["url"] == "http://prometheus:9090"
    assert "prometheus" in SERVICES


def test_prometheus_reads_the_services_of_compose_where_they_listen():
    configuration = yaml.safe_load((FOLDER.parent / "prometheus" / "prometheus.yml").read_text())
    for job in configuration["scrape_configs"]:
        (found,) = job["dns_sd_configs"]
        (name,) = found["names"]
        assert name == job["job_name"]
        listens = SERVICES[name]["environment"]["NEARKIN_METRICS_LISTEN"]
        assert listens == f"0.0.0.0:{found['port']}"
    watched = {job["job_name"] for job in configuration["scrape_configs"]}
    assert watched == {
        name
        for name, service in SERVICES.items()
        if "NEARKIN_METRICS_LISTEN" in service.get("environment", {}) and service.get("restart") != "no"
    }
