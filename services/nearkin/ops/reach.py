"""Whether a Kafka broker can be reached, asked before a Kafka client is made.

A client that finds no broker retries for long and says little; this says which addresses were tried, and when to stop.
"""

import socket
import time

from nearkin.core.errors import Misconfigured, Unavailable
from nearkin.ops.addresses import split_addresses


def require_broker(bootstrap: str, timeout_s: float) -> None:
    """Wait until one of the brokers accepts connections.

    Args:
        bootstrap: host:port separated by commas.
        timeout_s: how long at most.

    Raises:
        Misconfigured: an address is not host:port.
        Unavailable: none accepts.
    """
    try:
        addresses = split_addresses(bootstrap)
    except ValueError as error:
        raise Misconfigured(
            str(error), field="bootstrap", remedy="give host:port, several separated by commas", reason="address"
        ) from error
    deadline = time.monotonic() + timeout_s
    while True:
        for address in addresses:
            try:
                socket.create_connection(address, timeout=max(0.1, deadline - time.monotonic())).close()
            except OSError as error:
                problem = error
            else:
                return
        if time.monotonic() >= deadline:
            raise Unavailable("broker", f"nothing answers at {bootstrap} ({problem.strerror or problem})")
        time.sleep(min(0.1, timeout_s))
