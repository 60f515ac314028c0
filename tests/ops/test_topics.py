import pytest
from kafka import KafkaAdminClient

from nearkin.contracts.topics import ITEMS, TOPICS
from nearkin.core.errors import Misconfigured, Unavailable
from nearkin.embedded.broker import EmbeddedBroker
from nearkin.embedded.programs import free_port
from nearkin.ops.topics import apply_topics, check_topics


@pytest.fixture(scope="module")
def shared_broker():
    with EmbeddedBroker() as broker:
        yield broker


@pytest.fixture
def broker(shared_broker):
    """A broker without topics."""
    shared_broker.kill()
    shared_broker.start()
    return shared_broker


def test_topics_that_are_missing_are_told_and_not_made_by_a_check(broker):
    names = tuple(topic.name for topic in TOPICS)
    assert check_topics(broker.bootstrap, 4, 1).missing == names
    assert check_topics(broker.bootstrap, 4, 1).missing == names
    with pytest.raises(Misconfigured, match=r"items\.v1 is missing.*nearkin topics apply"):
        check_topics(broker.bootstrap, 4, 1).require()


def test_applied_topics_agree_with_the_contract(broker):
    applied = apply_topics(broker.bootstrap, 4, 1)
    assert applied.created == tuple(topic.name for topic in TOPICS)
    assert applied.agrees
    assert check_topics(broker.bootstrap, 4, 1).agrees


def test_applying_twice_changes_nothing(broker):
    apply_topics(broker.bootstrap, 4, 1)
    again = apply_topics(broker.bootstrap, 4, 1)
    assert again.created == ()
    assert again.agrees


def test_another_number_of_partitions_is_told_with_the_remedy(broker):
    apply_topics(broker.bootstrap, 2, 1)
    report = apply_topics(broker.bootstrap, 4, 1)
    assert [(m.found, m.wanted) for m in report.mismatches] == [("2", "4")] * len(TOPICS)
    assert "NEARKIN_ITEMS_PARTITIONS=2, or add partitions" in report.mismatches[0].remedy
    assert "cannot be taken away" in check_topics(broker.bootstrap, 1, 1).mismatches[0].remedy
    with pytest.raises(Misconfigured, match="number of partitions is 2, must be 4"):
        report.require()


def test_another_setting_is_told_and_left_as_it_is(broker):
    wrong = {"retention.ms": "1000", "max.message.bytes": str(ITEMS.max_message_bytes), "cleanup.policy": "compact"}
    admin = KafkaAdminClient(bootstrap_servers=broker.bootstrap)
    admin.create_topics({ITEMS.name: {"num_partitions": 4, "replication_factor": 1, "configs": wrong}})
    admin.close()
    for report in (apply_topics(broker.bootstrap, 4, 1), check_topics(broker.bootstrap, 4, 1)):
        found = {(m.topic, m.setting): (m.found, m.wanted) for m in report.mismatches}
        assert found == {
            ("items.v1", "retention.ms"): ("1000", str(ITEMS.retention_ms)),
            ("items.v1", "cleanup.policy"): ("compact", "delete"),
        }


def test_a_topic_that_the_broker_made_by_itself_is_told(broker):
    admin = KafkaAdminClient(bootstrap_servers=broker.bootstrap)
    admin.create_topics({ITEMS.name: {"num_partitions": 4, "replication_factor": 1}})
    admin.close()
    report = check_topics(broker.bootstrap, 4, 1)
    assert {m.setting: m.found for m in report.mismatches}["retention.ms"] == "not set"


def test_a_broker_out_of_reach_is_told_with_its_address():
    address = f"127.0.0.1:{free_port()}"
    with pytest.raises(Unavailable, match=address):
        check_topics(address, 4, 1, timeout_s=1)
