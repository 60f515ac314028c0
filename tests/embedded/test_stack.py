import asyncio
import os
import signal
import socket

import pytest
from kafka import KafkaAdminClient, KafkaProducer

from nearkin.contracts.topics import ITEMS
from nearkin.core.errors import Misconfigured
from nearkin.embedded.broker import EmbeddedBroker
from nearkin.embedded.programs import free_port
from nearkin.embedded.stack import StopRequested, apply_embedded_topics, choose_endpoints, run_stack, stopped_by_signals
from nearkin.embedded.supervisor import Supervisor
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


def test_look_ups_listen_where_they_were_asked_to_and_everything_else_on_free_ports():
    asked = f"127.0.0.1:{free_port()}"
    first, second = (choose_endpoints(load_settings(), asked) for _ in range(2))
    assert first.lookup == second.lookup == asked
    assert first.kafka != second.kafka


def test_port_0_becomes_a_free_one_that_others_can_be_told():
    lookup = choose_endpoints(load_settings(), "127.0.0.1:0").lookup
    assert lookup.startswith("127.0.0.1:")
    assert not lookup.endswith(":0")


def test_look_ups_are_open_to_other_machines_only_by_tls_or_the_operators_word():
    with pytest.raises(Misconfigured, match=r"NEARKIN_LOOKUP_LISTEN: .*0\.0\.0\.0.*NEARKIN_LISTEN_INSECURE=true"):
        choose_endpoints(load_settings(), "0.0.0.0:0")

    assert choose_endpoints(load_settings(listen_insecure=True), "0.0.0.0:0").lookup.startswith("0.0.0.0:")
    assert choose_endpoints(load_settings(lookup_cert="lookup.pem"), "0.0.0.0:0").lookup.startswith("0.0.0.0:")


async def test_a_taken_port_is_refused_before_anything_is_started(tmp_path):
    async def nothing(_stack):
        pytest.fail("it started")

    with socket.create_server(("127.0.0.1", 0)) as taken:
        asked = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(Misconfigured, match=r"cannot listen on .*stop what listens there") as refused:
            await run_stack(tmp_path / "data", nothing, report=lambda *_: None, lookup_listen=asked)
    assert refused.value.field == "NEARKIN_LOOKUP_LISTEN"
    assert not (tmp_path / "data" / "endpoints.json").exists()


@pytest.mark.parametrize(("apart_s", "hurries"), [(3600.0, False), (-1.0, True)])
async def test_signals_in_quick_succession_are_one_wish_and_a_later_one_ends_the_patience(
    tmp_path, monkeypatch, apart_s, hurries
):
    monkeypatch.setattr("nearkin.embedded.stack.ONE_WISH_S", apart_s)
    hurried = asyncio.Event()
    supervisor = Supervisor([], tmp_path)
    monkeypatch.setattr(supervisor, "hurry", hurried.set)

    async def work_and_stop() -> None:
        with stopped_by_signals(supervisor):
            try:
                os.kill(os.getpid(), signal.SIGTERM)
                await asyncio.Event().wait()
            finally:
                os.kill(os.getpid(), signal.SIGINT)
                await asyncio.sleep(0.05)

    with pytest.raises(StopRequested):
        await work_and_stop()
    assert hurried.is_set() is hurries
