"""`python -m nearkin.ops.ask_health ready`: what a service beside it says of itself, as an exit status.

A container's health check is a command, and the image has no curl. The address is that of NEARKIN_METRICS_LISTEN, the
service's own; one that listens everywhere is asked on loopback. Nothing but the standard library is imported, so that
a question every few seconds costs little.
"""

import http.client
import os
import sys

_TIMEOUT_S = 5.0

#: An address that means every interface, and the one of them that is asked.
_EVERYWHERE = {"0.0.0.0": "127.0.0.1", "[::]": "[::1]"}  # noqa: S104  # nothing listens here


def main(arguments: list[str]) -> int:
    """Ask; 0 where the service says yes, 1 where it says no or nothing, 2 where nobody can be asked."""
    listen = os.environ.get("NEARKIN_METRICS_LISTEN", "").strip()
    host, _, port = listen.rpartition(":")
    if len(arguments) != 1 or arguments[0] not in ("live", "ready") or not host or not port.isdecimal() or port == "0":
        print("usage: NEARKIN_METRICS_LISTEN=HOST:PORT ask_health live|ready", file=sys.stderr)  # noqa: T201
        return 2
    connection = http.client.HTTPConnection(_EVERYWHERE.get(host, host), int(port), timeout=_TIMEOUT_S)
    try:
        connection.request("GET", f"/{arguments[0]}")
        answer = connection.getresponse()
        said = answer.read(2000).decode(errors="replace").strip()
    except (OSError, http.client.HTTPException) as error:
        print(f"nothing answers on {listen}: {error}", file=sys.stderr)  # noqa: T201
        return 1
    finally:
        connection.close()
    print(said)  # noqa: T201
    return 0 if answer.status == http.HTTPStatus.OK else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
