"""A real Prometheus over a real stack, by the committed configuration: only time differs, and how processes are found.

Every duration, of scraping, of rules and of what alerts hold, is `FASTER` times shorter, so that minutes of an operator
are seconds of a test, and a window still holds as many values as it does in production.
"""

import http.client
import json
import math
import re
import urllib.parse
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from deploy.grafana.__main__ import files

from faults.running_parts import Part
from nearkin.embedded.programs import LOOPBACK, free_port
from waiting import until

ROOT = Path(__file__).parents[2] / "deploy"

#: Fifteen seconds between two scrapes become one.
FASTER = 15

#: What Grafana puts in place of its own variable: four scrapes, and some room for one that is late.
RATE_INTERVAL = "8s"


class Prometheus(Part):
    """The server, and what it answers.

    Args:
        program: where it is.
        folder: for its configuration, its store and its log.
        targets: host:port of every process, by job.
    """

    def __init__(self, program: str, folder: Path, targets: Mapping[str, str]) -> None:
        folder.mkdir()
        (folder / "rules").mkdir()
        for path, content in files(FASTER):
            if path.suffix == ".yml":
                (folder / "rules" / path.name).write_text(content)
        configuration = yaml.safe_load((ROOT / "prometheus" / "prometheus.yml").read_text())
        configuration["global"] |= {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"}
        assert {job["job_name"] for job in configuration["scrape_configs"]} == targets.keys()
        for job in configuration["scrape_configs"]:
            del job["dns_sd_configs"]
            job["static_configs"] = [{"targets": [targets[job["job_name"]]]}]
        (folder / "prometheus.yml").write_text(yaml.safe_dump(configuration))
        address = f"{LOOPBACK}:{free_port()}"
        command = [
            program,
            f"--config.file={folder / 'prometheus.yml'}",
            f"--storage.tsdb.path={folder / 'store'}",
            f"--web.listen-address={address}",
            "--log.level=warn",
        ]
        super().__init__("prometheus", command, folder, {}, address)

    @property
    def is_ready(self) -> bool:
        assert self.runs, f"Prometheus ended:\n{self.log.read_text()[-2000:]}"
        return self.ask("/-/ready")[0] == http.client.OK

    def query(self, expr: str) -> list[float]:
        """The values that an expression has now, without those that are no numbers.

        Raises:
            AssertionError: it is refused.
        """
        samples = self._answer("/api/v1/query", query=expr)
        pairs = (
            [samples["result"]] if samples["resultType"] == "scalar" else [one["value"] for one in samples["result"]]
        )
        return [value for _, text in pairs if not math.isnan(value := float(text))]

    def values_of(self, label: str, series: str) -> list[str]:
        """What Grafana's label_values() gives."""
        return list(self._answer(f"/api/v1/label/{label}/values", **{"match[]": series}))

    def alerts(self) -> list[dict[str, Any]]:
        """The alerts that are pending or fire."""
        return list(self._answer("/api/v1/alerts")["alerts"])

    def firing(self) -> set[str]:
        """The names of the alerts that fire."""
        return {alert["labels"]["alertname"] for alert in self.alerts() if alert["state"] == "firing"}

    def broken_rules(self) -> list[str]:
        """What went wrong with rules when they were evaluated last."""
        groups = self._answer("/api/v1/rules")["groups"]
        return [
            f"{rule['name']}: {rule['lastError']}"
            for group in groups
            for rule in group["rules"]
            if rule.get("lastError")
        ]

    def _answer(self, path: str, **arguments: str) -> Any:
        status, body = self.ask(f"{path}?{urllib.parse.urlencode(arguments)}")
        assert status == http.client.OK, f"{path} {arguments}: {status} {body.decode()}"
        return json.loads(body)["data"]


@dataclass
class Shown:
    """What was shown so far: which questions found something, which alerts fired and which of these cleared.

    Args:
        prometheus: is asked.

    Attributes:
        empty: queries that have found nothing yet, by where they stand.
        fired: alerts that fired.
    """

    prometheus: Prometheus
    empty: dict[str, str] = field(default_factory=dict)
    fired: dict[str, dict[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.empty = dict(queries())

    def look(self) -> set[str]:
        """Ask everything that has found nothing yet; the alerts that fire now."""
        for where, expr in list(self.empty.items()):
            if self._finds(expr):
                del self.empty[where]
        firing = {
            alert["labels"]["alertname"]: alert for alert in self.prometheus.alerts() if alert["state"] == "firing"
        }
        self.fired |= firing
        return set(firing)

    def until_firing(self, *alerts: str) -> None:
        """Wait until all of some alerts fire at once."""
        until(lambda: set(alerts) <= self.look(), f"{alerts} fire", every_s=0.5)

    def until_clear(self, *but: str) -> None:
        """Wait until no alert fires but some."""
        until(lambda: self.look() <= set(but), "every alert clears", timeout_s=180, every_s=0.5)

    def _finds(self, expr: str) -> bool:
        if labels := re.fullmatch(r"label_values\((.+), (\w+)\)", expr):
            return bool(self.prometheus.values_of(labels[2], labels[1]))
        return bool(self.prometheus.query(expr))


def queries() -> Iterator[tuple[str, str]]:
    """Every query of every panel and variable, and every expression that is recorded, by where it stands."""
    for path in sorted((ROOT / "grafana" / "dashboards").glob("*.json")):
        dashboard = json.loads(path.read_text())
        for variable in dashboard["templating"].get("list", []):
            if variable["type"] == "query":
                yield f"{path.stem}: the variable {variable['name']}", _chosen(variable["query"]["query"])
        for panel in dashboard["panels"]:
            for target in panel.get("targets", ()):
                yield f"{path.stem}: {panel['title']} {target['refId']}", _chosen(target["expr"])
    for path, content in files(FASTER):
        if path.name == "recording.yml":
            for rule in yaml.safe_load(content)["groups"][0]["rules"]:
                where = f"{rule['record']} {rule['labels']['sli']}"
                yield where, rule["expr"]
                yield f"{where}, as it is recorded", f'{rule["record"]}{{sli="{rule["labels"]["sli"]}"}}'


def _chosen(expr: str) -> str:
    """A query as Grafana sends it where a person has chosen everything."""
    return re.sub(r"\$(lane|job|instance|topic)\b", ".*", expr.replace("$__rate_interval", RATE_INTERVAL))
