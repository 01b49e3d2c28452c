"""On PYTHONPATH in tests: every Python process started there refuses connections off this machine."""

import sys

LOOPBACK = ("127.", "::1", "localhost", "0.0.0.0", "::ffff:127.")


def refuse(event, args):
    if event in ("socket.connect", "socket.sendto", "socket.sendmsg"):
        address = args[1]
    elif event == "socket.getaddrinfo":
        address = args
    else:
        return
    host = address[0] if isinstance(address, tuple) else ""  # a Unix socket's address is a path
    if host and not str(host).startswith(LOOPBACK):
        raise PermissionError(f"the network is refused in tests: {event} {host}")


sys.addaudithook(refuse)
