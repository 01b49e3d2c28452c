"""Start the endpoint: here, or in a process of its own."""

import math
import os
import secrets
import socket
import subprocess
import sys
import tempfile
from contextlib import contextmanager

import uvicorn

from slmops_lab.deployment.endpoint.protocol import LOOPBACK, TOKEN_VARIABLE
from slmops_lab.errors import CourseError


def serve(app, host="127.0.0.1", port=8000, token=None, seconds=30.0):
    """Serve until a signal; what is running then is finished, for at most `seconds`.

    Prints the address when it is ready to answer. Raises CourseError where the address is taken, and
    where others than this machine could reach it without a token.
    """
    if host not in LOOPBACK and token is None:
        raise CourseError(f"Without a token this serves {' or '.join(LOOPBACK)} only, not {host}.")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family, backlog=128)  # clients wait from here on
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else error.strerror  # the error's own text repeats the address
        raise CourseError(f"Cannot serve at {host}:{port}: {reason}. Give another --port.") from error
    shown = f"[{host}]" if ":" in host else host
    config = uvicorn.Config(app, log_level="warning", access_log=False, timeout_graceful_shutdown=math.ceil(seconds))
    print(f"Serving at http://{shown}:{listener.getsockname()[1]}/v1", flush=True)
    uvicorn.Server(config).run(sockets=[listener])


@contextmanager
def running(folder, *options, token=None):
    """`slmops serve` in a process of its own while the block runs; yields (base URL, token).

    options: further ones of the command, such as '--name', 'student'. Raises CourseError with what the
    process said where it does not start.
    """
    token = token or secrets.token_urlsafe(16)
    command = [sys.executable, "-m", "slmops_lab", "serve", str(folder), "--port", "0", *map(str, options)]
    errors = tempfile.TemporaryFile("w+")  # noqa: SIM115  (not a pipe: nobody would empty it)
    environment = {**os.environ, TOKEN_VARIABLE: token}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=errors, text=True)
    try:
        told = process.stdout.readline()
        if not told.startswith("Serving at "):
            process.wait(timeout=60)
            errors.seek(0)
            said = errors.read().strip().splitlines() or ["it said nothing"]
            raise CourseError(f"The endpoint did not start: {said[-1].removeprefix('slmops: ')}")
        yield told.split()[-1], token
    finally:
        process.terminate()
        try:
            process.communicate(timeout=60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
        errors.close()
