"""A rollout in the cloud: a new version beside the old one behind a managed online endpoint of Azure Machine Learning.

Two deployments, "blue" and "green", share the endpoint's address; traffic moves from one to the other by the groups
of a `rollout.Plan`, and back. Who decides is `rollout.Controller`, as for a fleet of devices; here stands only what
the service is sent. The service builds the image from the course's own Containerfile and starts `slmops serve` in it.

No key: the endpoint takes sign-ins of Microsoft Entra ID only (`aad_token`), so it has no keys that could be lost.
Callers send a bearer token for https://ml.azure.com of an identity that may score (azure-identity's
`get_bearer_token_provider`); the container is reached through the service alone and asks for no token of its own.
Showing costs nothing. A deployment costs money every hour, also without traffic, until it is deleted.
"""

import contextlib
import json
import re
import shutil
import tempfile
from pathlib import Path

from slmops_lab import settings
from slmops_lab.errors import CourseError
from slmops_lab.files import atomic_folder, sha256_of
from slmops_lab.operations import cloud, cloud_models, rollout

COLOURS = ("blue", "green")
PORT, MOUNT = 8000, "/model"
NEEDED = ("Containerfile", "pyproject.toml", "requirements.lock", "README.md", "LICENSE", "LICENSE-CONTENT")
# The service mounts a model somewhere below MOUNT: by name and version, and often by the folder that was uploaded.
FIND = f'"$(dirname "$(find -L {MOUNT} -name genai_config.json | head -n 1)")"'
START = f"exec slmops serve {FIND} --host 0.0.0.0 --port {PORT} --no-token --behind-gateway"
ENTRY = f"# in Azure: the service asks for the token\nENTRYPOINT {json.dumps(['sh', '-c', START])}\nCMD []\n"
NAME = re.compile(r"[a-zA-Z][a-zA-Z0-9-]{1,30}[a-zA-Z0-9]")  # of an endpoint, as the service wants it
SLACK = 10  # seconds that the service waits longer than the endpoint itself, so that the endpoint's reason arrives


def image(out):
    """Write the folder from which the service builds the endpoint's image; returns it.

    It is the course's Containerfile, with a start of its own, and what that copies. Raises CourseError where the
    course is not a checkout.
    """
    if missing := [name for name in NEEDED if not (settings.ROOT / name).is_file()]:
        raise CourseError(f"There is no {missing[0]} in {settings.ROOT}: an image is built from the course's checkout.")
    with atomic_folder(Path(out)) as folder:
        for name in NEEDED:
            shutil.copy(settings.ROOT / name, folder / name)
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(settings.ROOT / "slmops_lab", folder / "slmops_lab", ignore=ignored)
        with open(folder / "Containerfile", "a", encoding="utf-8") as file:  # of two, the last one counts
            file.write(ENTRY)
    return Path(out)


@cloud.quietly()
def environment(folder):
    """The Azure environment of an `image` folder, with the routes by which the service looks after it.

    Its version is the hash of the folder's files, so an image is built once for each state of the code.
    """
    from azure.ai.ml.entities import BuildContext, Environment

    files = sorted(file for file in Path(folder).rglob("*") if file.is_file())
    routes = {"liveness_route": "/healthz", "readiness_route": "/readyz"}
    routes["scoring_route"] = "/"  # what is asked below it, such as /v1/chat/completions, arrives as it is
    return Environment(
        name="slmops-endpoint",
        version=sha256_of(*files)[:16],
        build=BuildContext(path=str(folder), dockerfile_path="Containerfile"),
        inference_config={name: {"port": PORT, "path": path} for name, path in routes.items()},
    )


@cloud.quietly()
def endpoint(name, traffic=None):
    """The Azure endpoint, which knows its callers by their sign-in. traffic: {deployment: per cent}.

    name: one of its own in the whole region. Raises CourseError on a name that the service does not take.
    """
    from azure.ai.ml.entities import ManagedOnlineEndpoint

    if not NAME.fullmatch(name):
        raise CourseError(
            f"Azure does not take '{name}' as an endpoint's name: 3 to 32 letters, digits and -, a letter first."
        )
    return ManagedOnlineEndpoint(name=name, auth_mode="aad_token", traffic=traffic)


@cloud.quietly()
def deployment(colour, endpoint_name, model, env, instance_type="Standard_F2s_v2", instances=1):
    """One version behind an endpoint. model: a `cloud_models.asset`; env: an `environment`, or its id.

    instance_type: a machine of the service's list, the smallest by default, with 2 processors and 4 GB. The limits
    are those of `slmops serve`.
    """
    from azure.ai.ml.entities import ManagedOnlineDeployment, OnlineRequestSettings, ProbeSettings

    from slmops_lab.deployment.endpoint.protocol import Limits

    if not isinstance(instances, int) or instances < 1:
        raise CourseError(f"A deployment needs at least one machine, not {instances}.")
    limits = Limits()
    return ManagedOnlineDeployment(
        name=colour,
        endpoint_name=endpoint_name,
        model=f"azureml:{model.name}:{model.version}",
        model_mount_path=MOUNT,
        environment=env,
        instance_type=instance_type,
        instance_count=instances,
        liveness_probe=ProbeSettings(initial_delay=10, period=10, timeout=5, failure_threshold=30, success_threshold=1),
        readiness_probe=ProbeSettings(initial_delay=10, period=10, timeout=5, failure_threshold=3, success_threshold=1),
        request_settings=OnlineRequestSettings(
            # one more than `slmops serve` takes, so that it says itself that its queue is full
            max_concurrent_requests_per_instance=limits.queue + 2,
            request_timeout_ms=round(1000 * (limits.seconds + SLACK)),
        ),
        tags={"model": model.name, "version": model.version},
    )


def share(plan, open_groups, back=False):
    """Per cent of the traffic for the new version, where so many groups of a `rollout.Plan` are open.

    Azure counts whole per cents: a group gets at least one, and only the last one makes 100. The arguments after plan
    are what `rollout.Controller.decide` returns.
    """
    if back or not open_groups:
        return 0
    if open_groups >= len(plan.groups):
        return 100
    return min(99, max(1, round(100 * sum(group.share for group in plan.groups[:open_groups]))))


def steps(plan):
    """The per cents of a whole rollout, such as [0, 10, 50, 100]."""
    return [share(plan, opened) for opened in range(len(plan.groups) + 1)]


def tenth_half_all():
    """A `rollout.Plan` of three groups: 10, 50 and 100 % of the traffic."""
    return rollout.Plan(groups=[{"name": f"{round(100 * part)} %", "share": part} for part in (0.1, 0.4, 0.5)])


def bodies(name, model, plan=None, new="green", **machine):
    """What a rollout would send, in its order: a list of (what, body). Needs no network and no workspace.

    plan: a `rollout.Plan`, else `tenth_half_all`. machine: as for `deployment`. Raises CourseError as the parts do.
    """
    plan, old = plan or tenth_half_all(), _other(new)
    with _built() as env:
        beside = deployment(new, name, model, env, **machine)
        made = {"environment": env, "endpoint": endpoint(name), f"deployment {new}": beside}
        made |= {f"{new} {part} %": shared(name, new, part) for part in steps(plan)}
        made[f"back to {old}"] = shared(name, new, 0)
        told = {what: cloud.what_is_sent(thing) for what, thing in made.items()}
    told["environment"]["properties"]["build"]["contextUri"] = "(where the service keeps what is uploaded)"
    return list(told.items())


def shared(name, to, percent):
    """The `endpoint` with so much of its traffic for one colour, and the rest for the other."""
    return endpoint(name, _split(to, percent, _other(to)))


def _other(colour):
    if colour not in COLOURS:
        raise CourseError(f"A deployment is {' or '.join(COLOURS)}, not '{colour}'.")
    return COLOURS[1 - COLOURS.index(colour)]


@contextlib.contextmanager
def _built():
    with tempfile.TemporaryDirectory() as place:
        yield environment(image(Path(place) / "slmops-endpoint"))


def _split(new, part, old):
    return {colour: percent for colour, percent in {new: part, old: 100 - part}.items() if percent}


@cloud.quietly()
def deploy(name, model, client=None, minutes=60, **machine):
    """Bring a registered model behind the endpoint, beside what answers there; returns the traffic, {deployment: %}.

    The endpoint is made where there is none. The new deployment takes the colour that has no traffic and gets none
    yet; only where nothing else answers it gets all. Returns None where no workspace is configured. minutes: how
    long to wait for each operation. Raises CourseError where the model is not registered with this content and a gate
    that it passed, where a rollout is going on, where it takes too long, and with the service's reason.
    """
    there = endpoint(name)
    client = client or cloud.workspace()
    if client is None:
        return None
    _may_go_out(client, model)
    traffic = _traffic(client, name)
    if traffic is None:
        with cloud.asking(f"make the endpoint {name}"):
            cloud.finished(client.online_endpoints.begin_create_or_update(there), f"The endpoint {name}", minutes)
    colour = idle(traffic or {})
    with _built() as env, cloud.asking(f"deploy {model.name} {model.version} as {colour}"):
        begun = client.online_deployments.begin_create_or_update(deployment(colour, name, model, env, **machine))
        cloud.finished(begun, f"The deployment {colour} of {name}", minutes)
    if not any((traffic or {}).values()):
        return shift(name, colour, 100, client, minutes)
    return {**traffic, colour: 0}


def _may_go_out(client, model):
    called = f"{model.name} {model.version}"
    kept = cloud_models.find(client, model.name, model.version)
    if kept is None:
        raise CourseError(f"{called} is not registered in the workspace: slmops cloud register.")
    told = kept.properties
    if told.get(cloud_models.SIGNED) != model.properties[cloud_models.SIGNED]:
        raise CourseError(f"The {called} that is registered in the workspace is not this package.")
    if (verdict := told.get(cloud_models.VERDICT)) != cloud_models.PASSED:
        reasons = told.get("slmops.gate_reasons")
        raise CourseError(f"{called} may not go out, the gate is '{verdict}' in the workspace ({reasons}).")


def idle(traffic):
    """The colour for a new version: one without traffic. Raises CourseError where two answer."""
    live = [name for name, percent in traffic.items() if percent]
    if len(live) > 1:
        shares = ", ".join(f"{name} {traffic[name]} %" for name in sorted(live))
        raise CourseError(f"A rollout is going on ({shares}): bring it to 0 or 100 % first.")
    return next(colour for colour in COLOURS if colour not in live)


def _traffic(client, name):
    """{deployment: per cent} of an endpoint, those without any too; None where there is no endpoint."""
    there = _find(client, name)
    return None if there is None else there.traffic


def _find(client, name):
    from azure.core.exceptions import ResourceNotFoundError

    with cloud.asking(f"look for the endpoint {name}"):
        try:
            return client.online_endpoints.get(name)
        except ResourceNotFoundError:
            return None


@cloud.quietly()
def shift(name, to, percent, client=None, minutes=20):
    """Give a deployment so much of the traffic, and the rest to the other one; returns what is, {deployment: %}.

    Back to the old version is percent 0, or 100 for the old one. Returns None where no workspace is configured. Raises
    CourseError where there is no such endpoint or deployment, where nobody would take the rest, and as `deploy`.
    """
    if isinstance(percent, bool) or not isinstance(percent, int) or not 0 <= percent <= 100:
        raise CourseError(f"Azure shares traffic in whole per cents from 0 to 100, not {percent}.")
    client = client or cloud.workspace()
    if client is None:
        return None
    there = _find(client, name)
    if there is None:
        raise CourseError(f"There is no endpoint '{name}' in the workspace.")
    if to not in there.traffic:
        raise CourseError(f"{name} has no deployment '{to}': it has {', '.join(sorted(there.traffic)) or 'none'}.")
    others = [other for other in there.traffic if other != to]
    others = [other for other in others if there.traffic[other]] or others
    if percent < 100 and len(others) != 1:
        found = f"both {' and '.join(others)} could" if others else "no other deployment could"
        raise CourseError(f"{to} cannot have {percent} % of {name}: {found} take the rest.")
    there.traffic = _split(to, percent, others[0]) if percent < 100 else {to: 100}
    with cloud.asking(f"give {percent} % of {name} to {to}"):
        poller = client.online_endpoints.begin_create_or_update(there)
        return dict(cloud.finished(poller, f"The traffic of {name}", minutes).traffic)
