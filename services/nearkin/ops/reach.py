"""Whether a Kafka broker can be reached, asked before a Kafka client is made.

A client that finds no broker retries for long and says little; this says which addresses were tried, and when to stop.
"""

import socket
import time

from nearkin.core.errors import Misconfigured, Unavailable


def require_broker(bootstrap: str, timeout_s: float) -> None:
    """Wait until one of the brokers accepts connections.

    Args:
        bootstrap: host:port separated by commas.
        timeout_s: how long at most.

    Raises:
        Misconfigured: an address is not host:port.
        Unavailable: none accepts.
    """
    addresses = [_address(part.strip()) for part in bootstrap.split(",")]
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


def _address(part: str) -> tuple[str, int]:
    host, _, port = part.rpartition(":")
    if not host or not port.isdecimal():
        raise Misconfigured(
            f"{part!r} is not host:port", field="NEARKIN_KAFKA_BOOTSTRAP", remedy="give host:port, separated by commas"
        )
    return host.strip("[]"), int(port)
