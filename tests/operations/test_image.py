"""The endpoint's image as podman and Kubernetes start it: the command line that they compose is run here."""

import itertools
import json
import os
import re
import shlex
import socket
import subprocess
import sys
import tomllib
import urllib.request

import kubernetes_validate
import pytest
import yaml

from slmops_lab.errors import CourseError
from slmops_lab.operations import cloud_rollout, rollout
from slmops_lab.settings import ROOT

CONTAINERFILE = (ROOT / "Containerfile").read_text(encoding="utf-8")
PLAN = rollout.Plan(groups=[{"name": "canary", "share": 0.05}, {"name": "rest", "share": 0.95}])


def instructions(text):
    """{instruction: its last argument} of a Containerfile."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    return dict(re.findall(r"^([A-Z]+)\s+(.*)$", "\n".join(lines).replace("\\\n", " "), re.MULTILINE))


def composed(text, command=None, args=None):
    """What a container runs: command is in place of ENTRYPOINT and drops CMD, args are in place of CMD."""
    given = instructions(text)
    entry, default = (json.loads(given.get(name, "[]")) for name in ("ENTRYPOINT", "CMD"))
    return (command or entry) + (args if args is not None else [] if command else default)


def answers(command, mounts, port, variables, path="/healthz"):
    """The status of a path of that command, with folders of this machine in place of the container's."""
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["scripts"]
    assert command[0] == "slmops" and scripts["slmops"] == "slmops_lab.course.cli:main"
    command = [sys.executable, "-m", "slmops_lab", *(str(mounts.get(word, word)) for word in command[1:])]
    environment = os.environ | {"HOME": "/nonexistent"} | dict.fromkeys(variables, "a secret")
    process = subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        told = process.stdout.readline()
        assert told.startswith("Serving at http://0.0.0.0:"), told + process.stdout.read()
        port = port or int(re.search(r":(\d+)/v1", told)[1])
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=60) as answer:
            return answer.status
    finally:
        process.terminate()
        process.communicate(timeout=60)


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def test_a_pod_of_the_daemon_set_answers(tiny_onnx):
    port = free_port()
    pod = rollout.daemon_set(PLAN, "desk", "registry.example/desk", "2.0.0", port)["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    folders = {volume["name"] for volume in pod["volumes"] if "hostPath" in volume}
    mounts = {m["mountPath"]: tiny_onnx for m in container["volumeMounts"] if m["name"] in folders and m["readOnly"]}
    assert list(mounts) == ["/model"]
    secrets = [variable["name"] for variable in container["env"] if "secretKeyRef" in variable["valueFrom"]]
    probe = container["readinessProbe"]["httpGet"]
    assert (probe["path"], probe["port"], container["ports"]) == ("/readyz", port, [{"containerPort": port}])
    command = composed(CONTAINERFILE, container.get("command"), container.get("args"))
    assert answers(command, mounts, port, secrets, probe["path"]) == 200


@pytest.mark.parametrize("below", ["desk/1.2.0", "desk/1.2.0/desk-1.2.0"])
def test_azures_container_starts_wherever_the_model_is_mounted(tiny_onnx, tmp_path, below):
    mount, port = tmp_path / "model", free_port()
    (mount / below).parent.mkdir(parents=True)
    (mount / below).symlink_to(tiny_onnx)
    (tmp_path / "slmops").write_text(f'#!/bin/sh\nexec {sys.executable} -m slmops_lab "$@"\n')
    (tmp_path / "slmops").chmod(0o755)
    command = composed((ROOT / "Containerfile").read_text() + cloud_rollout.ENTRY)
    assert command == ["sh", "-c", cloud_rollout.START]
    asked = command[2].replace(cloud_rollout.MOUNT, str(mount)).replace(str(cloud_rollout.PORT), str(port))
    environment = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    process = subprocess.Popen(
        ["sh", "-c", asked], cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        told = process.stdout.readline()
        assert told.startswith(f"Serving at http://0.0.0.0:{port}/v1"), told  # and no token is printed before
        for path in ("healthz", "readyz", "v1/models"):  # the last without a token: the service has asked
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/{path}", timeout=60) as answer:
                assert answer.status == 200
    finally:
        process.terminate()
        process.communicate(timeout=60)


def test_podman_run_as_the_containerfile_says_answers(tiny_onnx):
    comment = re.sub(r"^# ?", "", "\n".join(re.findall(r"^#.*$", CONTAINERFILE, re.MULTILINE)), flags=re.MULTILINE)
    words = shlex.split(re.search(r"podman run(?:.*\\\n)*.*", comment)[0].replace("\\\n", " "))
    options = dict(itertools.pairwise(words))
    image = re.search(r"--tag (\S+)", comment)[1]
    behind = words[words.index(image) + 1 :]
    assert options["--volume"].endswith(":/model:ro")
    assert options["--publish"].endswith(":" + instructions(CONTAINERFILE)["EXPOSE"])
    command = [*composed(CONTAINERFILE, args=behind or None), "--port", "0"]
    assert answers(command, {"/model": tiny_onnx}, None, [options["--env"]]) == 200


def test_the_composition_is_that_of_kubernetes():
    text = 'ENTRYPOINT ["a"]\n# CMD ["no"]\nCMD ["b"]\n'
    assert composed(text) == ["a", "b"]
    assert composed(text, args=["c"]) == ["a", "c"]
    assert composed(text, command=["d"]) == ["d"]
    assert composed(text, command=["d"], args=["c"]) == ["d", "c"]


def test_the_daemon_set_is_valid_kubernetes():
    told = rollout.daemon_set(PLAN, "desk", "registry.example/desk", "2.0.0")
    kubernetes_validate.validate(told, "1.31", strict=True)
    assert told["spec"]["updateStrategy"]["rollingUpdate"]["maxUnavailable"] == "5%"
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate({**told, "spec": {**told["spec"], "replica": 3}}, "1.31", strict=True)


@pytest.mark.parametrize("name", ["My_Data", "mine: {a}", "x" * 80, '"', "-", "Ωμέγα"])
def test_names_are_written_as_kubernetes_wants_them(name):
    try:
        told = rollout.daemon_set(PLAN, name, "registry.example/desk", "2.0.0+north")
    except CourseError as error:
        assert "give a name with a letter or a digit" in str(error)
        return
    kubernetes_validate.validate(told, "1.31", strict=True)
    assert re.fullmatch(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?", told["metadata"]["name"])
    (container,) = told["spec"]["template"]["spec"]["containers"]
    assert container["image"] == "registry.example/desk:2.0.0_north"


def test_the_hawkbit_request_says_the_same():
    groups = [{"name": n, "share": s} for n, s in (("canary", 0.02), ('"early": {', 0.18), ("rest", 0.8))]
    groups[1]["messages"] = 9
    told = rollout.hawkbit_request(rollout.Plan(groups=groups), "desk 2.0.0", 6, "attribute.model==till")
    left, shares = 1.0, []
    for group in told["groups"]:  # its per cents are of the targets that are left
        shares.append(left * group["targetPercentage"] / 100)
        left -= shares[-1]
        assert group["errorAction"]["action"] == "PAUSE"
        assert group["successCondition"] == {"condition": "THRESHOLD", "expression": "90"}
    assert shares == pytest.approx([0.02, 0.18, 0.8], abs=1e-6)
    assert [group["successAction"]["action"] for group in told["groups"]] == ["NEXTGROUP", "PAUSE", "NEXTGROUP"]
    assert [group["name"] for group in told["groups"]] == [group["name"] for group in groups]
    assert told["distributionSetId"] == 6 and json.dumps(told)


def test_the_templates_are_yaml_and_packed():
    templates = sorted((ROOT / "slmops_lab" / "operations" / "templates").iterdir())
    assert templates and all(isinstance(yaml.safe_load(path.read_text()), dict) for path in templates)
    packed = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]["package-data"]
    assert all(any(path.match(pattern) for pattern in packed["slmops_lab.operations"]) for path in templates)
