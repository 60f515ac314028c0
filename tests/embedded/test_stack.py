from kafka import KafkaAdminClient, KafkaProducer

from nearkin.contracts.topics import ITEMS
from nearkin.embedded.broker import EmbeddedBroker
from nearkin.embedded.stack import apply_embedded_topics
from nearkin.ops.settings import load_settings
from nearkin.ops.topics import check_topics


def test_a_topic_that_a_quick_client_made_the_broker_make_is_made_anew():
    settings = load_settings(items_partitions=3)
    with EmbeddedBroker() as broker:
        with KafkaProducer(bootstrap_servers=broker.bootstrap) as quick:
            quick.send(ITEMS.name, value=b"too early").get(timeout=30)
        admin = KafkaAdminClient(bootstrap_servers=broker.bootstrap)
        assert admin.list_topics() == [ITEMS.name]
        admin.close()
        apply_embedded_topics(broker.bootstrap, settings)
        assert check_topics(broker.bootstrap, 3, 1).agrees
