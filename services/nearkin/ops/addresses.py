"""host:port, read in one way wherever it is given: as a setting, as an argument, as one of several brokers."""

import re

_ADDRESS = re.compile(r"(?:\[([0-9A-Fa-f:.]+(?:%\w+)?)\]|([^\s:/@\[\],]+)):([0-9]{1,10})")

#: What a gRPC target may have before its addresses: the resolver, and whom it asks.
_RESOLVER = re.compile(r"(?:dns|ipv4|ipv6):(?://[^/]*/)?")


def split_address(text: str, least_port: int = 1) -> tuple[str, int]:
    """The host, without the brackets of an IPv6 address, and the port.

    Args:
        text: host:port.
        least_port: 0 where the address is one to listen on, and any free port will do.

    Raises:
        ValueError: it is no address; its text says why.
    """
    parts = _ADDRESS.fullmatch(text)
    if parts is None:
        raise ValueError(f"{text!r} is not host:port")
    host, port = parts[1] or parts[2], int(parts[3])
    if not least_port <= port <= 65_535:
        raise ValueError(f"the port of {text!r} is not from {least_port} to 65535")
    try:
        host.encode("idna")  # as the resolver will
    except UnicodeError:
        raise ValueError(f"the host of {text!r} is not a name that can be resolved") from None
    return host, port


def split_addresses(text: str) -> list[tuple[str, int]]:
    """Several addresses, separated by commas; raises as `split_address`."""
    return [split_address(part.strip()) for part in text.split(",")]


def split_target(text: str) -> list[tuple[str, int]]:
    """The addresses of what gRPC connects to: host:port, or a target such as dns:///lookup:7700.

    Raises:
        ValueError: it is neither; its text says why.
    """
    resolver = _RESOLVER.match(text)
    return [split_address(text)] if resolver is None else split_addresses(text[resolver.end() :])


def split_parts(value: str) -> dict[str, str]:
    """Names and addresses, NAME=HOST:PORT separated by commas.

    Raises:
        ValueError: one is not, or a name comes twice; says which.
    """
    parts: dict[str, str] = {}
    for one in value.split(","):
        if not one.strip():
            continue
        name, separator, address = (word.strip() for word in one.partition("="))
        if not name or not separator:
            raise ValueError(f"{one.strip()!r} is not NAME=HOST:PORT")
        if name in parts:
            raise ValueError(f"{name!r} is named twice")
        split_address(address)
        parts[name] = address
    return parts
