"""Start the endpoint: here, or in a process of its own.

What is served, and to whom, is decided in `server`; this knows sockets and processes. It costs one more process.
"""

import errno
import math
import os
import secrets
import socket
import subprocess
import sys
import tempfile
import threading
from contextlib import contextmanager, suppress

import uvicorn

from slmops_lab.deployment.endpoint.protocol import LOOPBACK, TOKEN_VARIABLE
from slmops_lab.errors import CourseError


def serve(app, host="127.0.0.1", port=8000, token=None, seconds=30.0, gateway=False):
    """Serve until a signal; what is running then is finished, for at most `seconds`.

    gateway: others reach it only through something that has asked them who they are. Prints the address when it is
    ready to answer. Raises CourseError where the address is taken, and where others than this machine could reach it
    without a token and without such a gateway.
    """
    if host not in LOOPBACK and token is None and not gateway:
        raise CourseError(f"Without a token this serves {' or '.join(LOOPBACK)} only, not {host}.")
    if not 0 <= port <= 65_535:
        raise CourseError(f"Cannot serve at port {port}: ports are numbers from 0 to 65535.")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family, backlog=128)  # clients wait from here on
        # its connections inherit this; asyncio does not know them as TCP, and an answer's body, sent after its head,
        # would wait 40 ms for the client's system to acknowledge the head (Nagle's algorithm, RFC 896)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    except (OSError, UnicodeError) as error:  # the last: a name that cannot be one
        number = getattr(error, "errno", None) or 0  # below 0: the name was not found
        reason = os.strerror(number) if number > 0 else "there is no such host"
        option = "--host" if number <= 0 or number == errno.EADDRNOTAVAIL else "--port"
        raise CourseError(f"Cannot serve at {host}:{port}: {reason}. Give another {option}.") from error
    shown = f"[{host}]" if ":" in host else host
    config = uvicorn.Config(app, log_level="warning", access_log=False, timeout_graceful_shutdown=math.ceil(seconds))
    print(f"Serving at http://{shown}:{listener.getsockname()[1]}/v1", flush=True)
    uvicorn.Server(config).run(sockets=[listener])


@contextmanager
def running(folder, *options, token=None, seconds=120):
    """`slmops serve` in a process of its own while the block runs; yields (base URL, token).

    options: further ones of the command, such as '--name', 'student'. seconds: how long it may take to start. The
    process is ended in any case. Raises CourseError with what it said where it does not start.
    """
    token = token or secrets.token_urlsafe(16)
    command = [sys.executable, "-m", "slmops_lab", "serve", str(folder), "--port", "0", *map(str, options)]
    environment = {**os.environ, TOKEN_VARIABLE: token}
    with tempfile.TemporaryFile("w+") as errors:  # not a pipe: nobody would empty it
        process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=errors, text=True)
        late = threading.Event()
        alarm = threading.Timer(seconds, lambda: (late.set(), process.kill()))  # which ends the reading, too
        try:
            alarm.start()
            told = next((line for line in process.stdout if line.startswith("Serving at ")), None)
            alarm.cancel()
            if told is None or late.is_set():
                errors.seek(0)
                said = errors.read().strip().splitlines() or ["it said nothing"]
                reason = f"it took longer than {seconds:g} s" if late.is_set() else said[-1].removeprefix("slmops: ")
                raise CourseError(f"The endpoint did not start: {reason}")
            yield told.split()[-1], token
        finally:
            alarm.cancel()
            process.terminate()
            with suppress(subprocess.TimeoutExpired):
                process.communicate(timeout=60)
            process.kill()
            process.wait()
