"""Whether this machine can talk to itself: the ranks of a cell find each other through localhost."""

import socket
from typing import Any

CONNECT_S = 2.0
HOST = "localhost"
"""As agents tell their ranks (worker/agent.py)."""


def has_loopback(host: str = HOST) -> bool:
    """Whether a connection to `host` can be made here; not where the loopback device is down or the name unknown."""
    try:
        found = socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM)
    except OSError:
        return False
    return any(_connects(family, address) for family, _, _, _, address in found)


def _connects(family: int, address: Any) -> bool:
    try:
        with socket.create_server(address[:2], family=family) as server, socket.socket(family) as client:
            client.settimeout(CONNECT_S)
            client.connect(server.getsockname())
            return True
    except OSError:
        return False
