import pytest

from nearkin.core.errors import Misconfigured
from nearkin.ops.listening import is_local, require_protected


@pytest.mark.parametrize("address", ["127.0.0.1:1", "127.8.8.8:1", "localhost:1", "[::1]:1"])
def test_loopback_is_this_machine_alone(address):
    assert is_local(address)


@pytest.mark.parametrize(
    "address", ["0.0.0.0:1", "[::]:1", "10.0.0.1:1", "lookup:1", "localhost.example:1", "[fe80::1%eth0]:1"]
)
def test_everything_else_may_be_reached_from_elsewhere(address):
    assert not is_local(address)


def test_beyond_this_machine_it_takes_tls_or_the_operators_word():
    with pytest.raises(Misconfigured, match=r"NEARKIN_X_LISTEN: .*0\.0\.0\.0:1.*set a certificate, listen on 127"):
        require_protected("0.0.0.0:1", "NEARKIN_X_LISTEN", by_tls=False, insecure=False, remedy="set a certificate, ")

    require_protected("0.0.0.0:1", "NEARKIN_X_LISTEN", by_tls=True, insecure=False)
    require_protected("0.0.0.0:1", "NEARKIN_X_LISTEN", by_tls=False, insecure=True)
