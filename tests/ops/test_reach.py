import socket

import pytest

from nearkin.core.errors import Misconfigured, Unavailable
from nearkin.ops.reach import require_broker


@pytest.fixture
def listening():
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


def test_one_broker_that_listens_is_enough(listening):
    require_broker(f"127.0.0.1:1, {listening}", 1)


def test_none_that_listens_is_told_with_every_address():
    with pytest.raises(Unavailable, match=r"nothing answers at 127\.0\.0\.1:1,127\.0\.0\.1:2"):
        require_broker("127.0.0.1:1,127.0.0.1:2", 0.1)


@pytest.mark.parametrize("bootstrap", ["foo", "127.0.0.1:1,foo", "127.0.0.1:99999", "a..b:9092"])
def test_what_is_no_address_is_blamed_on_the_argument_not_on_a_setting(bootstrap):
    with pytest.raises(Misconfigured, match=r"^bootstrap: .*; give host:port"):
        require_broker(bootstrap, 0.1)
