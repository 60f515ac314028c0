import pytest

from nearkin.embedded.broker import EmbeddedBroker
from nearkin.embedded.lent_topics import lent_topics
from nearkin.ops.settings import load_settings
from nearkin.ops.topics import check_topics


def test_topics_are_gone_with_the_demonstration():
    with EmbeddedBroker() as broker:
        with lent_topics(load_settings(kafka_bootstrap=broker.bootstrap)):
            assert check_topics(broker.bootstrap, 4, 1).agrees
        assert len(check_topics(broker.bootstrap, 4, 1).missing) == 9


@pytest.mark.slow  # the dead broker is waited for
def test_what_ended_the_demonstration_is_told_though_its_topics_stay(caplog):
    def fail(broker: EmbeddedBroker) -> None:
        with lent_topics(load_settings(kafka_bootstrap=broker.bootstrap)):
            broker.kill()
            raise ValueError("what failed first")

    with EmbeddedBroker() as broker, pytest.raises(ValueError, match="what failed first"):
        fail(broker)
    assert "the topics of the demonstration stay" in caplog.text
