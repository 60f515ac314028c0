import gc
import json
import threading
import time
import warnings
from concurrent.futures import Future
from unittest import mock

import pytest
from kafka import KafkaConsumer, TopicPartition, errors

from nearkin.client.producer import Producer
from nearkin.contracts.events import Kind, decode_item_event
from nearkin.contracts.feedback import decode_feedback, decode_visit
from nearkin.core.errors import InvalidEvent, Misconfigured, PermanentError, Unavailable
from nearkin.core.feedback import Action, Impressions, Interaction, Shown, Visit, VisitKind
from nearkin.core.item import Availability, Content, Offer, Price
from nearkin.embedded.broker import EmbeddedBroker
from nearkin.embedded.programs import free_port
from nearkin.ops.topics import apply_topics

NOW = 1_700_000_000_000
MUG = Content(title="Red mug", tags=("kitchen",))
KEY = "k1:" + "0" * 64
PSEUDONYM = "k1:9f86d081884c7d659a2feaa0c55ad015"
SLATE = (Shown("bowl", 1, 0.9), Shown("cup", 2, visible=False))
PRICE = Offer(Price(4.5, "GBP"), Availability.PREORDER, ("GB",))


@pytest.fixture(scope="module")
def broker():
    with EmbeddedBroker() as running:
        apply_topics(running.bootstrap, 4, 1)
        yield running


@pytest.fixture
def producer(broker):
    with Producer(broker.bootstrap, clock=lambda: NOW, pseudonym_key=KEY) as made:
        yield made


def event_at(broker, outcome: Future):
    """The event that the broker keeps where a future says it is."""
    place = outcome.result(timeout=30)
    with KafkaConsumer(bootstrap_servers=broker.bootstrap, consumer_timeout_ms=20_000) as consumer:
        partition = TopicPartition(place.topic, place.partition)
        consumer.assign([partition])
        consumer.seek(partition, place.offset)
        record = next(consumer)
    decode = {"feedback.v1": decode_feedback, "visits.v1": decode_visit}.get(place.topic, decode_item_event)
    return decode(record.key, record.value)


def test_after_an_outage_a_producer_knocks_every_second_and_not_every_half_minute(producer):
    assert producer._kafka.config["reconnect_backoff_max_ms"] <= 1_000


def test_an_upsert_carries_the_whole_item_and_its_versions(broker, producer):
    event = event_at(broker, producer.upsert("mug", MUG, 3, offer=PRICE, offer_version=7))
    assert (event.kind, event.item_id, event.occurred_at) == (Kind.UPSERTED, "mug", NOW)
    assert (event.state.content, event.state.offer) == (MUG, PRICE)
    assert (event.state.content_version, event.state.offered_version) == (3, 7)


def test_versions_are_the_time_where_they_are_left_out(broker, producer):
    event = event_at(broker, producer.upsert("mug", MUG, offer=PRICE))
    assert event.state.content_version == event.state.offered_version == NOW
    assert event_at(broker, producer.offer("mug", PRICE, occurred_at=NOW + 1)).state.offered_version == NOW + 1
    assert event_at(broker, producer.delete("mug")).state.deleted_version == NOW


def test_every_event_has_a_name_of_its_own_unless_it_is_given_one(broker, producer):
    first, second = producer.delete("mug"), producer.delete("mug")
    assert event_at(broker, first).event_id != event_at(broker, second).event_id
    assert event_at(broker, producer.delete("mug", event_id="once")).event_id == "once"


def test_the_lane_is_chosen_by_the_call(producer):
    assert producer.delete("mug").result(timeout=30).topic == "items.v1"
    assert producer.delete("mug", bulk=True).result(timeout=30).topic == "items-bulk.v1"


def test_events_of_one_item_stay_in_order(producer):
    places = [producer.offer("mug", PRICE, version).result(timeout=30) for version in range(20)]
    assert len({place.partition for place in places}) == 1
    assert [place.offset for place in places] == sorted(place.offset for place in places)


def test_a_slate_is_feedback_of_its_anchor(broker, producer):
    event = event_at(
        broker, producer.impressions("mug", "r-1", "page", iter(SLATE), market="GB", pseudonym=PSEUDONYM, event_id="e")
    )
    assert event == Impressions("e", NOW, "mug", "r-1", "page", SLATE, "GB", PSEUDONYM)


def test_an_action_is_feedback_of_its_anchor(broker, producer):
    outcome = producer.interaction("mug", "bowl", Action.PURCHASE, value=2, request_id="r-1", position=1, event_id="e")
    assert outcome.result(timeout=30).topic == "feedback.v1"
    assert event_at(broker, outcome) == Interaction("e", NOW, "mug", "bowl", Action.PURCHASE, 2.0, "r-1", 1)


def test_a_visit_goes_to_visits(broker, producer):
    event = event_at(broker, producer.visit("basket-1", ["mug", "bowl", "mug"], event_id="e", occurred_at=NOW - 5))
    assert event == Visit("e", NOW - 5, "basket-1", VisitKind.BASKET, ("mug", "bowl"))
    session = event_at(broker, producer.visit("session-1", ("mug",), VisitKind.SESSION))
    assert session.kind is VisitKind.SESSION


def test_a_user_is_sent_as_a_pseudonym_the_same_for_each_of_the_three(broker, producer):
    users = {
        event_at(broker, outcome).user
        for outcome in (
            producer.impressions("mug", "r-1", "page", SLATE, user="ann"),
            producer.interaction("mug", "bowl", Action.CLICK, user="ann"),
            producer.visit("v", ["mug"], user="ann"),
        )
    }
    assert len(users) == 1
    assert users != {event_at(broker, producer.visit("v", ["mug"], user="bob")).user}
    assert "ann" not in users.pop()


def test_the_key_comes_from_a_setting_where_none_is_given(broker, producer, monkeypatch, tmp_path):
    (tmp_path / "nearkin_pseudonym_key").write_text(KEY + "\n")
    monkeypatch.setenv("NEARKIN_SECRETS_DIR", str(tmp_path))
    with Producer(broker.bootstrap, clock=lambda: NOW) as other:
        outcomes = [one.visit("v", ["mug"], user="ann") for one in (producer, other)]
        assert len({event_at(broker, outcome).user for outcome in outcomes}) == 1


def test_a_user_without_a_key_is_refused_with_the_setting_that_is_missing(broker, monkeypatch):
    monkeypatch.delenv("NEARKIN_SECRETS_DIR", raising=False)
    monkeypatch.delenv("NEARKIN_PSEUDONYM_KEY", raising=False)
    with Producer(broker.bootstrap) as producer:
        with pytest.raises(Misconfigured, match=r"^NEARKIN_PSEUDONYM_KEY: .*openssl rand -hex 32"):
            producer.visit("v", ["mug"], user="ann")
        producer.visit("v", ["mug"]).result(timeout=30)


@pytest.mark.parametrize(
    ("publish", "reason", "field"),
    [
        (lambda producer: producer.visit("v", ["mug"], pseudonym="ann@example.com"), "not_a_pseudonym", "user"),
        (lambda producer: producer.visit("v", ["mug"], user="ann", pseudonym=PSEUDONYM), "wrong_type", "pseudonym"),
        (lambda producer: producer.visit("v", ["mug"], user=5), "wrong_type", "user"),
        (lambda producer: producer.visit("v", ["mug"], user=" "), "empty", "user"),
        (lambda producer: producer.visit("v", ["mug"], user="\ud800"), "surrogate", "user"),
        (lambda producer: producer.visit("v", "mug"), "wrong_type", "items"),
        (lambda producer: producer.visit("v", 5), "wrong_type", "items"),
        (lambda producer: producer.visit("v", ["mug"], "wishlist"), "unknown_value", "visit_kind"),
        (lambda producer: producer.visit("v", ["mug"], occurred_at="now"), "wrong_type", "occurred_at"),
        (lambda producer: producer.visit("v", ["mug"], occurred_at=NOW + 10**6), "in_future", "occurred_at"),
        (lambda producer: producer.visit("v", ["mug"], occurred_at=NOW - 10**10), "too_late", "occurred_at"),
        (lambda producer: producer.interaction("mug", "mug", Action.CLICK), "self_pair", "item_id"),
        (lambda producer: producer.interaction("mug", "bowl", "stare"), "unknown_value", "action"),
        (lambda producer: producer.impressions("mug", "r", "page", [Shown("mug", 1)]), "self_pair", "positions"),
        (lambda producer: producer.impressions("mug", "r", "page", ["bowl"]), "wrong_type", "positions[0]"),
    ],
)
def test_feedback_that_breaks_the_contract_is_refused_at_once_and_not_sent(producer, publish, reason, field):
    with mock.patch.object(producer, "send") as send, pytest.raises(InvalidEvent) as refusal:
        publish(producer)
    send.assert_not_called()
    assert (refusal.value.reason, refusal.value.field) == (reason, field)
    assert "ann" not in str(refusal.value)


@pytest.mark.parametrize(
    "publish",
    [
        lambda producer: producer.upsert("nearkin-probe-00", MUG),
        lambda producer: producer.upsert("nearkin-probe-00", MUG, bulk=True),
        lambda producer: producer.offer("nearkin-probe-", Offer()),
        lambda producer: producer.delete("nearkin-probe-00"),
        lambda producer: producer.visit("v", ["mug", "nearkin-probe-00"]),
        lambda producer: producer.interaction("mug", "nearkin-probe-00", Action.CLICK),
        lambda producer: producer.impressions("nearkin-probe-00", "r", "page", [Shown("mug", 1)]),
    ],
)
def test_what_is_the_monitors_own_is_refused_at_once_and_not_sent(producer, publish):
    with mock.patch.object(producer._kafka, "send") as send, pytest.raises(InvalidEvent) as refusal:
        publish(producer)
    send.assert_not_called()
    assert refusal.value.reason == "reserved_id"
    assert "nearkin-probe-" in refusal.value.remedy


def test_an_event_that_breaks_the_contract_is_refused_at_once_and_not_sent(producer):
    with mock.patch.object(producer, "send") as send:
        for publish in (
            lambda: producer.upsert("", MUG),
            lambda: producer.upsert("mug", Content(title="x" * 1001)),
            lambda: producer.offer("mug", Offer(Price(float("nan"), "GBP"))),
            lambda: producer.delete("mug", 2**53),
        ):
            with pytest.raises(InvalidEvent):
                publish()
    send.assert_not_called()


@pytest.mark.parametrize(
    ("publish", "field"),
    [
        (lambda producer: producer.upsert(5, MUG), "id"),
        (lambda producer: producer.upsert("mug", {"title": "x"}), "content"),
        (lambda producer: producer.upsert("mug", "Red mug"), "content"),
        (lambda producer: producer.upsert("mug", Content(title=b"x")), "content.title"),
        (lambda producer: producer.upsert("mug", MUG, "3"), "content_version"),
        (lambda producer: producer.upsert("mug", MUG, offer=8.0), "offer"),
        (lambda producer: producer.upsert("mug", MUG, offer=Offer(8.0)), "offer.price"),
        (lambda producer: producer.upsert("mug", MUG, offer=PRICE, offer_version=1.5), "offer_version"),
        (lambda producer: producer.offer("mug", {"price": None}), "offer"),
        (lambda producer: producer.delete("mug", event_id=5), "event_id"),
        (lambda producer: producer.delete("mug", occurred_at="now"), "occurred_at"),
        (lambda producer: producer.send("mug", b"{}"), "key"),
        (lambda producer: producer.send(b"mug", {}), "value"),
    ],
)
def test_an_argument_of_a_wrong_type_is_named(producer, publish, field):
    with pytest.raises(InvalidEvent) as refusal:
        publish(producer)
    assert (refusal.value.reason, refusal.value.field) == ("wrong_type", field)


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ({"bootstrap": "foo"}, "bootstrap"),
        ({"bootstrap": ["127.0.0.1:9092"]}, "bootstrap"),
        ({"connect_timeout_s": "1"}, "connect_timeout_s"),
        ({"delivery_timeout_s": 0}, "delivery_timeout_s"),
        ({"delivery_timeout_s": float("inf")}, "delivery_timeout_s"),
        ({"max_pending": 0}, "max_pending"),
        ({"pseudonym_key": "s3cret"}, "pseudonym_key"),
        ({"pseudonym_key": b"s3cret"}, "pseudonym_key"),
        ({"acks": 0}, "acks"),
        ({"acks": "most"}, "acks"),
        ({"transactional_id": "t"}, "transactional_id"),
        ({"ssl_cafile": "missing.pem"}, "ssl_cafile"),
        ({"sasl_plain_pasword": "s3cret"}, "sasl_plain_pasword"),
    ],
)
def test_an_argument_that_no_broker_could_serve_is_named_without_asking_one(arguments, field):
    with pytest.raises(Misconfigured) as refusal:
        Producer(**{"bootstrap": "127.0.0.1:1", **arguments})
    assert refusal.value.field == field
    assert "s3cret" not in str(refusal.value)


def test_what_kafka_refuses_by_itself_is_misconfigured(broker):
    with pytest.raises(Misconfigured, match=r"^kafka_options: KafkaProducer refuses them: .*codec"):
        Producer(broker.bootstrap, compression_type="morse")
    # kafka-python leaves the connections that it has by then to the garbage collector.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (errors.TopicAuthorizationFailedError(), Misconfigured),
        (errors.ClusterAuthorizationFailedError(), Misconfigured),
        (errors.SaslAuthenticationFailedError(), Misconfigured),
        (errors.UnsupportedVersionError(), Misconfigured),
        (errors.UnknownTopicOrPartitionError(), Misconfigured),
        (errors.MessageSizeTooLargeError(), InvalidEvent),
        (errors.NotEnoughReplicasError(), Unavailable),
        (errors.KafkaTimeoutError(), Unavailable),
        (errors.KafkaConnectionError(), Unavailable),
    ],
)
def test_what_another_try_could_not_change_is_permanent(producer, error, kind):
    with mock.patch.object(producer._kafka, "send", side_effect=error), pytest.raises(kind):
        producer.delete("mug")


def test_a_closed_producer_refuses_for_good(broker):
    producer = Producer(broker.bootstrap)
    producer.close()
    with pytest.raises(PermanentError, match="the producer is closed"):
        producer.upsert("mug", MUG)
    producer.close()


def test_what_leaves_a_with_statement_is_the_callers_error_and_what_still_waits_fails_for_good():
    waiting = []
    others = set(threading.enumerate())

    def interrupted(broker):
        with Producer(broker.bootstrap) as producer:
            producer.delete("first").result(timeout=30)
            broker.pause()
            waiting.append(producer.delete("mug"))
            raise KeyError

    with EmbeddedBroker() as broker:
        apply_topics(broker.bootstrap, 4, 1)
        with pytest.raises(KeyError):
            interrupted(broker)
        error = waiting[0].exception(timeout=60)
        broker.resume()
        # A client that sees its broker go would leave the sockets of its tries to the garbage collector.
        for thread in set(threading.enumerate()) - others:
            thread.join(timeout=60)
    assert isinstance(error, PermanentError)
    assert "the producer is closed" in str(error)


def test_flush_returns_when_every_future_has_its_outcome(producer):
    outcomes = [producer.delete(f"mug-{number}") for number in range(500)]
    producer.flush()
    assert all(outcome.done() for outcome in outcomes)


def test_a_broker_out_of_reach_is_told_with_its_address():
    address = f"127.0.0.1:{free_port()}"
    with pytest.raises(Unavailable, match=address):
        Producer(address, connect_timeout_s=0.1)


def test_what_waited_for_a_paused_broker_arrives_once():
    with EmbeddedBroker() as broker:
        apply_topics(broker.bootstrap, 4, 1)
        # Requests time out during the pause and are sent again: the broker must know them.
        with Producer(broker.bootstrap, request_timeout_ms=800) as producer:
            producer.delete("first").result(timeout=30)
            broker.pause()
            resume = threading.Timer(2.2, broker.resume)
            resume.start()
            outcomes = [producer.delete(f"mug-{number}") for number in range(50)]
            assert all(outcome.result(timeout=60) for outcome in outcomes)
            resume.join()
        with KafkaConsumer(bootstrap_servers=broker.bootstrap, consumer_timeout_ms=1000) as consumer:
            consumer.assign([TopicPartition("items.v1", number) for number in range(4)])
            consumer.seek_to_beginning()
            kept = [json.loads(record.value)["id"] for record in consumer]
    assert sorted(kept) == sorted(["first", *(f"mug-{number}" for number in range(50))])


def test_an_event_without_acknowledgement_fails_when_its_time_has_passed():
    with EmbeddedBroker() as broker:
        apply_topics(broker.bootstrap, 4, 1)
        producer = Producer(broker.bootstrap, delivery_timeout_s=1)
        producer.delete("first").result(timeout=30)
        broker.pause()
        outcome = producer.delete("mug")
        assert isinstance(outcome.exception(timeout=60), Unavailable)
        broker.resume()
        producer.close(0)


def test_after_an_outage_that_was_too_long_for_some_events_later_ones_arrive():
    with EmbeddedBroker() as broker:
        apply_topics(broker.bootstrap, 4, 1)
        with Producer(broker.bootstrap, connect_timeout_s=5, delivery_timeout_s=3) as producer:
            content = Content(title="Red mug")
            producer.upsert("before", content).result(timeout=30)
            broker.pause()
            waiting = []
            for number in range(60):  # over several requests that time out and are sent again
                waiting.append(producer.upsert(f"meanwhile-{number}", content))
                time.sleep(0.1)
            assert any(isinstance(each.exception(timeout=30), Unavailable) for each in waiting[:10])
            broker.resume()

            def arrives():
                try:
                    return producer.upsert("after", content).result(timeout=30)
                except Unavailable:
                    return None

            assert any(arrives() for _ in range(5))


def test_a_fast_caller_waits_instead_of_filling_the_memory():
    with EmbeddedBroker() as broker:
        apply_topics(broker.bootstrap, 4, 1)
        with Producer(broker.bootstrap, max_pending=10) as producer:
            producer.delete("first").result(timeout=30)
            broker.pause()
            sent = []
            caller = threading.Thread(target=lambda: sent.extend(producer.delete(f"mug-{n}") for n in range(20)))
            caller.start()
            caller.join(timeout=0.5)
            assert caller.is_alive()
            broker.resume()
            caller.join(timeout=60)
            assert all(outcome.result(timeout=60) for outcome in sent)
