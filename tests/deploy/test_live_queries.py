"""Every query finds data in a Prometheus that reads a whole stack, and every alert fires under its fault and clears.

Faults that do not disturb each other are there at the same time. The burn of the objective over hours is promtool's to
play (test_prometheus_rules.py).
"""

import shutil
import time
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from deploy.prometheus.alerts import ALERTS
from kafka import KafkaProducer

from certificates import Authority
from deploy.live_prometheus import Prometheus, Shown
from deploy.live_traffic import ITEM_IDS, Traffic
from faults.running_parts import Part, Parts
from nearkin.contracts.events import encode_upserted
from nearkin.contracts.feedback import encode_visit
from nearkin.contracts.topics import ITEMS, ITEMS_BULK, VISITS
from nearkin.core.feedback import Visit, VisitKind
from nearkin.core.item import Content
from nearkin.ops.tls import Tls
from waiting import until

#: Told of by figures that a busy machine may have without any fault, or over hours.
BY_FIGURES = {"NearkinFreshnessBurnsFast", "NearkinFreshnessBurnsSlowly", "NearkinLookupsSlow", "NearkinLiveItemsWait"}

#: Over windows of hours, which promtool plays.
BY_PROMTOOL = {"NearkinFreshnessBurnsFast", "NearkinFreshnessBurnsSlowly"}


class Watched(Parts):
    """A whole stack with its monitor, whose look-ups have little room, so that a test can fill it."""

    def __init__(self, folder, prometheus):
        super().__init__(folder)
        self.rules = folder / "decisions.jsonl"
        self.rules.write_text('{"block": "item-59"}\n')
        self.authority = Authority(folder / "authority")
        self.certificate = self.authority.issue(days=60)
        self.feedback = self._service("feedback", "nearkin.feedback", NEARKIN_PRIORS_EVERY_S="2")
        self.lookup = self._service(
            "lookup",
            "nearkin.lookup",
            NEARKIN_LOOKUP_LISTEN=self.lookup_address,
            NEARKIN_LOOKUP_CONCURRENCY="4",
            NEARKIN_LOOKUP_LOG_BUFFER="300",
            NEARKIN_EXPLORE_SHARE="0.3",
            NEARKIN_EXPLORE_NEW_ITEM_SHARE="0.3",
            NEARKIN_RULES_FILE=str(self.rules),
            NEARKIN_LOOKUP_CERT=str(self.certificate.cert),
            NEARKIN_LOOKUP_KEY=str(self.certificate.key),
        )
        asked = {part.name: part.metrics_address for part in (self.live, self.bulk, self.feedback)}
        self.monitor = self._service(
            "monitor",
            "nearkin.monitor",
            NEARKIN_LOOKUP_ADDRESS=self.lookup_address,
            NEARKIN_LOOKUP_TLS="true",
            NEARKIN_LOOKUP_CA=str(self.authority.file),
            NEARKIN_MONITOR_PARTS=",".join(f"{name}={address}" for name, address in asked.items()),
            NEARKIN_PROBE_EVERY_S="1",
            NEARKIN_PROBE_LATE_S="1",
        )
        read = asked | {part.name: part.metrics_address for part in (self.lookup, self.monitor)}
        self.prometheus = Prometheus(prometheus, folder / "prometheus", read)
        self._stack.callback(self.prometheus.kill)


@pytest.fixture
def stack(tmp_path, prometheus) -> Iterator[Watched]:
    with Watched(tmp_path / "stack", prometheus) as watched:
        watched.start(watched.broker, watched.index, watched.redis)
        watched.start(watched.live, watched.bulk, watched.feedback, watched.lookup)
        watched.start(watched.monitor, watched.prometheus)
        yield watched


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_every_query_finds_data_and_every_alert_fires_under_its_fault_and_clears(stack):
    shown = Shown(stack.prometheus)
    trusts = Tls(ca=stack.authority.file)
    with ExitStack() as closing, Traffic(stack.bootstrap, stack.lookup_address, trusts) as traffic:
        producer = closing.enter_context(KafkaProducer(bootstrap_servers=stack.bootstrap, acks="all"))
        expect_no_alert(shown)
        stop_workers_and_look_ups(stack, shown, traffic, producer)
        stop_redis_and_flood(stack, shown, traffic)
        stop_the_index(stack, shown)
        stop_the_broker(stack, shown)
        stop_the_monitor(stack, shown)
        traffic_goes_on(stack)
        shown.until_clear(*BY_PROMTOOL)
    assert not shown.empty, "found nothing at any time:\n" + "\n".join(map(": ".join, shown.empty.items()))
    assert not stack.prometheus.broken_rules()
    assert {alert.name for alert in ALERTS} - BY_PROMTOOL <= shown.fired.keys()
    for alert in shown.fired.values():
        assert "{{" not in str(alert["annotations"])
        assert "<error" not in str(alert["annotations"])


def expect_no_alert(shown):
    """While all is well, nobody is told anything."""
    until(lambda: sum(shown.prometheus.query("sum(nearkin_lookups_answered_total)")) > 100, "look-ups are answered")
    until(
        lambda: sum(shown.prometheus.query('nearkin_monitor_probes_total{outcome!="failed"}')) > 2, "probes come and go"
    )
    for _ in range(10):
        assert shown.look() <= BY_FIGURES
        time.sleep(1)


def stop_workers_and_look_ups(stack, shown, traffic, producer):
    """Every worker hangs, and look-ups are dead; what waits in two lanes has waited for long.

    They come back with a certificate that was not renewed in time.
    """
    traffic.feedback = False
    until(
        lambda: sum(shown.prometheus.query('nearkin_monitor_lag_events{topic="visits.v1"}')) == 0, "visits are counted"
    )
    for worker in (stack.live, stack.bulk, stack.feedback):
        worker.pause()
    stack.lookup.kill()
    stack.certificate.become(stack.authority.issue(days=1))
    send_of_the_past(producer)
    traffic.feedback = True
    shown.until_firing(
        "NearkinIndexerDown",
        "NearkinFeedbackDown",
        "NearkinLookupDown",
        "NearkinLiveItemsWait",
        "NearkinBulkItemsWait",
        "NearkinFeedbackWaits",
        "NearkinProbesFail",
        "NearkinProcessDown",
    )
    for worker in (stack.live, stack.bulk, stack.feedback):
        worker.resume()
    stack.start(stack.lookup)


def stop_redis_and_flood(stack, shown, traffic):
    """Redis is dead, and comes back empty.

    Meanwhile a producer sends nonsense with a wrong clock, users come in crowds, and the file of decisions is spoiled.
    """
    stack.redis.kill()
    traffic.poison, traffic.crowd, traffic.ahead_ms = True, True, 60_000
    stack.rules.write_text("no decision\n")
    shown.until_firing(
        "NearkinRedisDown",
        "NearkinRetries",
        "NearkinAnswersDegraded",
        "NearkinDeadLetters",
        "NearkinPoisonFlood",
        "NearkinClocksDisagree",
        "NearkinLookupsShed",
        "NearkinCurationStale",
        "NearkinCertificateExpires",
    )
    stack.certificate.become(stack.authority.issue(days=60))
    traffic.poison, traffic.crowd, traffic.ahead_ms = False, False, 0
    stack.rules.write_text('{"block": "item-59"}\n')
    skip_offsets(stack.bootstrap)
    shutil.rmtree(stack.redis_folder)
    stack.redis_folder.mkdir()
    stack.start(stack.redis)
    shown.until_firing("NearkinEvidenceWentBack", "NearkinEventsLost")


def stop_the_index(stack, shown):
    """The index hangs: whoever asks it waits until it gives up."""
    stack.index.pause()
    shown.until_firing("NearkinIndexDown", "NearkinLookupsFail", "NearkinLookupsSlow", "NearkinProcessWaits")
    stack.index.resume()


def stop_the_broker(stack, shown):
    """The broker hangs: answers wait to be logged until there is no more room."""
    stack.broker.pause()
    shown.until_firing("NearkinBrokerDown", "NearkinAnswersUnlogged")
    stack.broker.resume()


def stop_the_monitor(stack, shown):
    """Who watches the others is dead."""
    stack.monitor.kill()
    shown.until_firing("NearkinMonitorDown")
    stack.start(stack.monitor)


def traffic_goes_on(stack):
    """Every part serves again by itself."""
    parts: list[Part] = [stack.live, stack.bulk, stack.feedback, stack.lookup, stack.monitor]
    for part in parts:
        until(lambda part=part: part.is_ready, f"{part.name} is ready again")


def skip_offsets(bootstrap):
    """Leave holes between events: the end of a transaction takes an offset, and is delivered to nobody."""
    with KafkaProducer(bootstrap_servers=bootstrap, acks="all", transactional_id="skips") as producer:
        producer.init_transactions()
        for number in range(8):
            at = int(time.time() * 1000)
            item = encode_upserted(f"item-{number}", Content(title="Together"), 1, event_id="t", occurred_at=at)
            producer.begin_transaction()
            producer.send(ITEMS.name, key=item[0], value=item[1]).get(timeout=30)
            producer.commit_transaction()


def send_of_the_past(producer):
    """Publish a bulk item and a visit that have waited on the broker for hours."""
    now = int(time.time() * 1000)
    item = encode_upserted("item-of-a-load", Content(title="Of a load"), 1, event_id="load-1", occurred_at=now)
    visit = Visit("late-1", now, "late-1", VisitKind.BASKET, tuple(ITEM_IDS[:3]), None)
    for topic, (key, value) in ((ITEMS_BULK, item), (VISITS, encode_visit(visit))):
        producer.send(topic.name, key=key, value=value, timestamp_ms=now - 3 * 3_600_000).get(timeout=30)
