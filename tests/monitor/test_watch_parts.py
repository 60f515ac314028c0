"""What the monitor says of parts: once for each change."""

import logging

import pytest
from prometheus_client import CollectorRegistry

from nearkin.monitor.watch_parts import GRACE_S, Parts, asked, engines_of, says_ready, services_of
from nearkin.ops.health import Health, HealthServer
from nearkin.ops.metrics import Metrics
from nearkin.ops.settings import load_settings


class TestParts:
    @pytest.fixture(autouse=True)
    def parts(self, caplog):
        caplog.set_level(logging.INFO)
        self.now = 0.0
        self.metrics = Metrics(CollectorRegistry())
        self.parts = Parts(self.metrics, clock=lambda: self.now)
        self.caplog = caplog

    def up(self, part: str) -> float | None:
        return self.metrics.registry.get_sample_value("nearkin_monitor_part_up", {"part": part})

    def told(self) -> list[tuple[str, str]]:
        return [(record.message, record.fields["part"]) for record in self.caplog.records]

    def test_each_change_is_told_once_and_the_metric_follows(self):
        for problem in ("", "", "gone", "gone for long", "", ""):
            self.parts.hear("index", problem)
            assert self.up("index") == float(not problem)
        assert self.told() == [("a part is down", "index"), ("a part is back", "index")]

    def test_what_starts_together_with_the_monitor_is_no_news_while_it_starts(self):
        self.parts.hear("index", "connection refused")
        assert self.told() == []
        assert self.up("index") == 0.0
        self.now = GRACE_S + 1
        self.parts.hear("index", "connection refused")
        assert self.told() == [("a part is down", "index")]

    def test_the_line_says_what_is_wrong_and_later_for_how_long_it_was(self):
        self.parts.hear("redis", "")
        self.now = 100.0
        self.parts.hear("redis", "out of memory")
        self.now = 130.0
        self.parts.hear("redis", "")
        down, back = self.caplog.records
        assert down.fields["problem"] == "out of memory"
        assert back.fields["down_s"] == 30.0

    async def test_who_waits_for_all_to_answer_goes_on_without_one_that_does_not(self):
        self.parts.hear("index", "")
        self.parts.hear("redis", "gone")
        await self.parts.answer(["index"])
        await self.parts.answer(["index", "redis"], within_s=0.05)
        self.parts.hear("redis", "")
        await self.parts.answer(["index", "redis"])


def test_a_service_is_asked_for_its_own_readiness():
    metrics = Metrics(CollectorRegistry())
    health = Health(metrics, "index")
    with HealthServer("127.0.0.1:0", health, metrics) as server:
        assert says_ready(server.address) == "waits for index: starting"
        health.ready("index")
        assert says_ready(server.address) == ""
    assert "nothing answers" in says_ready(server.address)


async def test_an_unforeseen_failure_of_a_question_is_a_problem_of_the_part():
    async def fails() -> str:
        raise ZeroDivisionError("no words of it are told")

    problem = await asked(fails)
    assert problem.startswith("ZeroDivisionError at")
    assert "words" not in problem


def test_settings_name_the_parts():
    settings = load_settings(
        monitor_parts="indexer-live=10.0.0.1:9101, monitor=10.0.0.1:9105", monitor_engines="broker, index"
    )
    assert services_of(settings) == {"indexer-live": "10.0.0.1:9101"}
    assert engines_of(settings) == ["broker", "index"]
