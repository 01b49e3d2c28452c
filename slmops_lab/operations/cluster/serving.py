"""The endpoint of `deployment.endpoint` on a cluster: the same application, in several replicas, behind Ray Serve.

A replica is a process with a model of its own; each has its own queue and its own metrics, so /metrics tells of the one
that was asked. One door, on the machine that starts it, shares requests out. Ray Serve restarts a replica that dies;
whom it was answering gets an error. Costs a model's memory for each replica, and some milliseconds a request.
https://docs.ray.io/en/latest/serve/http-guide.html
"""

import signal
import socket
import sys
from contextlib import closing, suppress
from pathlib import Path

from slmops_lab.deployment import runtime
from slmops_lab.deployment.endpoint import protocol, server
from slmops_lab.errors import CourseError
from slmops_lab.operations.cluster import driver

NAME = "slmops"


def serve(folder, on, host, port, token, given, replicas=1, cores=1):
    """Serve until a signal. given: the further arguments of `server.application`, and `files`, the adapters.

    Prints the address when the replicas are ready to answer. Raises CourseError where others than this machine could
    reach it without a token, where the folder holds no model, where the address is taken, and as `driver.run` does.
    """
    if host not in protocol.LOOPBACK and token is None:
        raise CourseError(f"Without a token this serves {' or '.join(protocol.LOOPBACK)} only, not {host}.")
    runtime.refuse_no_model(folder)
    told = {"folder": str(Path(folder).resolve()), "host": host, "port": port, "replicas": replicas, "cores": cores}
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # so that the replicas are put away before this ends
    replied = driver.run(on, run_replicas, told | {"given": given | {"token": token}})
    with suppress(KeyboardInterrupt), closing(replied) as addresses:
        for address in addresses:
            print(f"Serving at {address}", flush=True)


def run_replicas(tell, folder, host, port, replicas, cores, given):
    """The work of the driver's process: tells the address, and serves until the caller leaves."""
    from ray import serve as ray_serve

    driver.waits_for_the_caller.set()
    if (room := driver.room(cores)) < replicas:
        raise CourseError(f"The Ray cluster has room for {room} replicas of {cores} cores, not for {replicas}.")
    port = _free(host, port)
    ray_serve.start(proxy_location="HeadOnly", http_options={"host": host, "port": port})
    # waiting is the application's own matter, which refuses who comes when its queue is full
    how = {"num_replicas": replicas, "max_ongoing_requests": 10_000, "ray_actor_options": {"num_cpus": cores}}
    made = ray_serve.deployment(ray_serve.ingress()(Replica)).options(**how)
    try:
        ray_serve.run(made.bind(folder, given), name=NAME, route_prefix="/")
        tell(f"http://{f'[{host}]' if ':' in host else host}:{port}/v1")
        while not driver.caller_left.wait(1.0):
            pass
    finally:
        ray_serve.shutdown()


def _free(host, port):
    """The port, or any free one for 0. Raises CourseError where it is taken."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.create_server((host, port), family=family) as listener:
            return listener.getsockname()[1]
    except (OSError, OverflowError) as error:
        raise CourseError(f"Cannot serve at {host}:{port}: {getattr(error, 'strerror', error)}.") from None


class Replica:
    """What Ray Serve starts in each replica: it opens the model there, and answers with the endpoint's application."""

    def __init__(self, folder, given):
        given = dict(given)
        self.application = server.application(runtime.GenAIRuntime(folder, given.pop("files", {})), **given)

    def __serve_build_asgi_app__(self):
        return self.application
