"""Two deployments behind one endpoint, with the real SDK and a workspace inside this process."""

import json
import re
import traceback

import pytest
from resource_manager import REFUSALS, client_of, configured, signed_package, stand_in
from typer.testing import CliRunner

from slmops_lab.course import cli
from slmops_lab.deployment.endpoint import protocol, server
from slmops_lab.errors import CourseError
from slmops_lab.operations import cloud_models, cloud_rollout, rollout
from slmops_lab.settings import ROOT

PLAN = rollout.Plan(
    groups=[{"name": "canary", "share": 0.02}, {"name": "half", "share": 0.48}, {"name": "all", "share": 0.5}]
)


@pytest.fixture
def desk(tmp_path):
    """The Azure model of a package that passed its gate."""
    folder, key, budgets = signed_package(tmp_path)
    return cloud_models.asset(folder, key, budgets, "till")


@pytest.fixture
def azure(monkeypatch, desk):
    """A workspace that has the model."""
    manager = stand_in(monkeypatch)
    monkeypatch.setattr(cloud_rollout, "image", small_image)
    cloud_models.register(desk, client_of(manager))
    return manager


def small_image(out):
    """In place of the real one, which has a hundred files."""
    out.mkdir()
    (out / "Containerfile").write_text("FROM scratch\n")
    return out


@pytest.fixture
def beside(azure, desk):
    """The same workspace with 'blue' answering at 'my-desk' and a new 'green' beside it."""
    for _ in range(2):
        cloud_rollout.deploy("my-desk", desk, client_of(azure))
    azure.calls.clear()
    return azure


def traffics(azure):
    return [body["properties"]["traffic"] for body in azure.sent("PUT", "/onlineEndpoints/my-desk$")]


def test_what_is_shown(desk):
    bodies = dict(cloud_rollout.bodies("my-desk", desk, PLAN))
    assert list(bodies)[:3] == ["environment", "endpoint", "deployment green"]
    assert list(bodies)[3:] == ["green 0 %", "green 2 %", "green 50 %", "green 100 %", "back to blue"]
    env, endpoint, green = (bodies[name] for name in list(bodies)[:3])
    assert endpoint["properties"]["authMode"] == "AADToken"
    assert {route["port"] for route in env["properties"]["inferenceConfig"].values()} == {cloud_rollout.PORT}
    assert env["properties"]["build"]["dockerfilePath"] == "Containerfile"
    told = green["properties"]
    assert (told["endpointComputeType"], told["model"], told["modelMountPath"]) == (
        "Managed",
        "azureml:desk:1.2.0",
        "/model",
    )
    assert (told["instanceType"], green["sku"]) == ("Standard_F2s_v2", {"name": "Default", "capacity": 1})
    assert told["livenessProbe"]["period"] == told["readinessProbe"]["period"] == "PT10S"
    limits = protocol.Limits()
    assert told["requestSettings"]["requestTimeout"] == f"PT{limits.seconds + 10:.0f}S"
    assert told["requestSettings"]["maxConcurrentRequestsPerInstance"] > limits.queue + 1
    shares = [body["properties"]["traffic"] for body in list(bodies.values())[3:]]
    assert shares == [{"blue": 100}, {"green": 2, "blue": 98}, {"green": 50, "blue": 50}, {"green": 100}, {"blue": 100}]


def test_the_routes_are_those_of_our_endpoint(desk):
    class Runtime:
        names = ()

    paths = server.application(Runtime(), "student").openapi()["paths"]
    routes = dict(cloud_rollout.bodies("my-desk", desk))["environment"]["properties"]["inferenceConfig"]
    assert routes["livenessRoute"]["path"] in paths and routes["readinessRoute"]["path"] in paths
    assert routes["scoringRoute"]["path"] == "/" and "/v1/chat/completions" in paths


def test_the_image_is_the_courses_with_a_start_of_its_own(tmp_path):
    folder = cloud_rollout.image(tmp_path / "image")
    text = (folder / "Containerfile").read_text()
    assert text.startswith((ROOT / "Containerfile").read_text())
    for line in re.findall(r"^COPY (.*) \S+$", text, re.MULTILINE):
        assert all((folder / name).exists() for name in line.split())
    (*_, entry), (*_, command) = (
        re.findall(r"^ENTRYPOINT (.*)$", text, re.MULTILINE),
        re.findall(r"^CMD (.*)$", text, re.MULTILINE),
    )
    assert (json.loads(entry)[:2], json.loads(command)) == (["sh", "-c"], [])
    first = cloud_rollout.environment(folder).version
    assert cloud_rollout.environment(cloud_rollout.image(tmp_path / "other")).version == first
    (folder / "slmops_lab" / "errors.py").write_text("# changed")
    assert cloud_rollout.environment(folder).version != first


def test_outside_of_a_checkout_there_is_no_image(tmp_path, monkeypatch):
    monkeypatch.setattr("slmops_lab.settings.ROOT", tmp_path)
    with pytest.raises(
        CourseError, match="There is no Containerfile in .*: an image is built from the course's checkout"
    ):
        cloud_rollout.image(tmp_path / "image")


def test_the_first_version_gets_all(azure, desk):
    azure.calls.clear()
    assert cloud_rollout.deploy("my-desk", desk, client_of(azure)) == {"blue": 100}
    assert traffics(azure) == [{}, {"blue": 100}]
    shown = dict(cloud_rollout.bodies("my-desk", desk, new="blue"))
    (env,), (sent,) = azure.sent("PUT", "/environments/"), azure.sent("PUT", "/deployments/blue$")
    assert env["properties"].pop("build")["contextUri"].rstrip("/").endswith("/slmops-endpoint")
    shown["environment"]["properties"].pop("build")
    assert env == shown["environment"]
    assert re.search(r"/environments/slmops-endpoint/versions/[0-9a-f]{16}$", sent["properties"].pop("environmentId"))
    assert sent["properties"].pop("model").endswith("/models/desk/versions/1.2.0")
    assert shown["deployment blue"]["properties"].pop("model") == "azureml:desk:1.2.0"
    for body in (sent, shown["deployment blue"]):
        body.pop("location")
    assert sent == shown["deployment blue"]


def test_the_second_version_waits_beside_it(azure, desk):
    client = client_of(azure)
    cloud_rollout.deploy("my-desk", desk, client)
    azure.calls.clear()
    assert cloud_rollout.deploy("my-desk", desk, client) == {"blue": 100, "green": 0}
    assert len(azure.sent("PUT", "/deployments/green$")) == 1 and not traffics(azure)


def test_traffic_follows_the_controller_there_and_back(beside, tmp_path):
    """The plan and the decisions are those of a fleet of devices."""
    client, size = client_of(beside), 100
    controller = rollout.Controller(PLAN, tmp_path / "state.json", "1.2.0")
    groups = [{"size": size, "new": size, "failed": 0} for _ in PLAN.groups]
    judged = {"new": [0, 0], "old": [0, 0]}
    while controller.state["status"] == "running":
        decided = controller.decide({"hour": 1.0, "groups": groups, "judged": judged})
        cloud_rollout.shift("my-desk", "green", cloud_rollout.share(PLAN, *decided), client)
    assert traffics(beside)[:3] == [{"green": 2, "blue": 98}, {"green": 50, "blue": 50}, {"green": 100}]
    failed = [group | {"failed": size} for group in groups]
    controller = rollout.Controller(PLAN, tmp_path / "other.json", "1.2.0")
    for seen in (groups, failed):
        decided = controller.decide({"hour": 1.0, "groups": seen, "judged": judged})
    assert cloud_rollout.share(PLAN, *decided) == 0
    assert cloud_rollout.shift("my-desk", "green", 0, client) == {"blue": 100}


def test_back_is_also_everything_for_blue(beside):
    client = client_of(beside)
    cloud_rollout.shift("my-desk", "green", 50, client)
    assert cloud_rollout.shift("my-desk", "blue", 100, client) == {"blue": 100}
    (body,) = beside.sent("PUT", "/onlineEndpoints/my-desk$")[-1:]
    assert body["identity"]["type"] == "SystemAssigned" and body["properties"]["authMode"] == "AADToken"


@pytest.mark.parametrize(
    ("shares", "steps"),
    [
        ([0.1, 0.4, 0.5], [0, 10, 50, 100]),
        ([0.001, 0.999], [0, 1, 100]),
        ([0.999, 0.001], [0, 99, 100]),
        ([1.0], [0, 100]),
        ([1 / 3, 1 / 3, 1 / 3], [0, 33, 67, 100]),
    ],
)
def test_shares_are_whole_per_cents(shares, steps):
    plan = rollout.Plan(groups=[{"name": str(share), "share": share} for share in shares])
    assert cloud_rollout.steps(plan) == steps
    assert [cloud_rollout.share(plan, opened, back=True) for opened in range(len(shares) + 1)] == [0] * len(steps)
    assert cloud_rollout.steps(cloud_rollout.tenth_half_all()) == [0, 10, 50, 100]


def test_a_second_rollout_waits_for_the_first(beside, desk):
    client = client_of(beside)
    cloud_rollout.shift("my-desk", "green", 10, client)
    with pytest.raises(
        CourseError, match=r"A rollout is going on \(blue 90 %, green 10 %\): bring it to 0 or 100 % first"
    ):
        cloud_rollout.deploy("my-desk", desk, client)
    cloud_rollout.shift("my-desk", "green", 100, client)
    assert cloud_rollout.deploy("my-desk", desk, client) == {"green": 100, "blue": 0}


@pytest.mark.parametrize(
    ("to", "percent", "said"),
    [
        ("red", 10, "my-desk has no deployment 'red': it has blue, green"),
        ("green", 101, "whole per cents from 0 to 100, not 101"),
        ("green", -1, "not -1"),
        ("green", 12.5, "not 12.5"),
        ("green", True, "not True"),
    ],
)
def test_traffic_that_cannot_be(beside, to, percent, said):
    with pytest.raises(CourseError, match=said):
        cloud_rollout.shift("my-desk", to, percent, client_of(beside))
    assert not traffics(beside)


def test_traffic_of_what_is_not_there(azure, desk):
    client = client_of(azure)
    with pytest.raises(CourseError, match="There is no endpoint 'my-desk' in the workspace"):
        cloud_rollout.shift("my-desk", "blue", 10, client)
    cloud_rollout.deploy("my-desk", desk, client)
    with pytest.raises(CourseError, match="blue cannot have 10 % of my-desk: no other deployment could take the rest"):
        cloud_rollout.shift("my-desk", "blue", 10, client)


@pytest.mark.parametrize("name", ["", "ab", "1desk", "my_desk", "desk-", "x" * 33, "my desk", "désk", "desk\n"])
def test_names_that_no_endpoint_has(name):
    with pytest.raises(CourseError, match="Azure does not take '.*"):
        cloud_rollout.endpoint(name)


def test_the_sdk_takes_the_names_that_we_take(desk):
    for name in ("abc", "x" * 32, "My-Desk-2"):
        assert dict(cloud_rollout.bodies(name, desk))["endpoint"]
    with pytest.raises(CourseError, match="A deployment is blue or green, not 'red'"):
        cloud_rollout.bodies("my-desk", desk, new="red")
    with pytest.raises(CourseError, match="at least one machine, not 0"):
        cloud_rollout.bodies("my-desk", desk, instances=0)


def test_only_what_is_registered_and_passed_goes_out(tmp_path, monkeypatch, desk):
    azure = stand_in(monkeypatch)
    client = client_of(azure)
    with pytest.raises(CourseError, match="desk 1.2.0 is not registered in the workspace: slmops cloud register"):
        cloud_rollout.deploy("my-desk", desk, client)
    (tmp_path / "more").mkdir()
    folder, key, budgets = signed_package(tmp_path / "more")
    for wanted, said in (
        ("watch", r"gate is 'failed' in the workspace \(megabytes is 27"),
        (None, "gate is 'not asked'"),
    ):
        azure.kept.clear()
        other = cloud_models.asset(folder, key, *([budgets, wanted] if wanted else []))
        cloud_models.register(other, client)
        with pytest.raises(CourseError, match=f"desk 1.2.0 may not go out, the {said}"):
            cloud_rollout.deploy("my-desk", other, client)
    with pytest.raises(CourseError, match="The desk 1.2.0 that is registered in the workspace is not this package"):
        cloud_rollout.deploy("my-desk", desk, client)
    assert not azure.sent("PUT", "/onlineEndpoints/")


WHERE = {"make the endpoint my-desk": "PUT .*/my-desk$", "deploy desk 1.2.0 as blue": "PUT .*/deployments/"}
WHERE |= {"look for the endpoint my-desk": "GET .*/my-desk$", "look for desk 1.2.0": "GET .*/models/"}


# who looks whether something is there is told so by a 404
CASES = [(where, *refusal) for where in WHERE for refusal in REFUSALS if (where[:4], refusal[0]) != ("look", 404)]


@pytest.mark.parametrize(("where", "status", "code", "message", "said"), CASES)
def test_each_refusal_is_one_sentence(azure, desk, where, status, code, message, said):
    azure.fails = {WHERE[where]: (status, code, message)}
    with pytest.raises(CourseError, match=f"Azure did not {where}: .*{said}") as refusal:
        cloud_rollout.deploy("my-desk", desk, client_of(azure, retry_total=0))
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(("status", "code", "message", "said"), REFUSALS)
def test_each_refusal_of_traffic_is_one_sentence(beside, status, code, message, said):
    beside.fails = {"PUT .*/my-desk$": (status, code, message)}
    with pytest.raises(CourseError, match=f"Azure did not give 10 % of my-desk to green: .*{said}") as refusal:
        cloud_rollout.shift("my-desk", "green", 10, client_of(beside, retry_total=0))
    assert "\n" not in str(refusal.value)


def test_a_long_operation_is_waited_for(azure, desk):
    azure.slow = 4
    assert cloud_rollout.deploy("my-desk", desk, client_of(azure)) == {"blue": 100}
    assert len(azure.sent("GET", "OperationsStatus")) == 3 * 4


def test_but_not_for_ever(azure, desk):
    azure.slow = 10**9
    with pytest.raises(
        CourseError, match=r"The endpoint my-desk is not finished after 0.005 minutes: it goes on in the service"
    ):
        cloud_rollout.deploy("my-desk", desk, client_of(azure), minutes=0.005)
    azure.slow = 0  # the thread that looks ends, too


def test_a_long_operation_that_fails_says_why(azure, desk):
    azure.outcome = {"code": "OutOfQuota", "message": "Not enough quota for Standard_F2s_v2.\nMore of it."}
    with pytest.raises(
        CourseError, match=r"did not make the endpoint my-desk: .*quota.* \(ask for a higher"
    ) as refusal:
        cloud_rollout.deploy("my-desk", desk, client_of(azure))
    assert "\n" not in str(refusal.value)


def test_no_key_in_any_body_output_or_traceback(azure, desk, tmp_path, monkeypatch, capfd, caplog):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-planted-in-the-environment")
    monkeypatch.setenv(protocol.TOKEN_VARIABLE, "planted-token-of-the-endpoint")
    client = client_of(azure)
    told = [json.dumps(cloud_rollout.bodies("my-desk", desk)), str(cloud_rollout.deploy("my-desk", desk, client))]
    azure.outcome = {"code": "Bad", "message": "It holds Bearer PLANTED-BEARER and AccountKey=PLANTED-ACCOUNT;"}
    with pytest.raises(CourseError, match=r"\(secret\).*\(secret\)") as refusal:
        cloud_rollout.deploy("my-desk", desk, client)
    told += traceback.format_exception(refusal.value)
    everything = "\n".join([*told, *capfd.readouterr(), caplog.text, json.dumps(azure.calls)])
    assert "listKeys" not in everything and "SLMOPS_SERVE_TOKEN" not in everything
    for planted in ("sk-planted", "planted-token", "PLANTED", "eyJ"):
        assert planted not in everything


def slmops(*words):
    return CliRunner().invoke(cli.app, [*map(str, words)], catch_exceptions=False).output


def test_from_the_command_line(tmp_path, monkeypatch):
    folder, key, budgets = signed_package(tmp_path)
    azure = stand_in(monkeypatch)
    asked = ["cloud", "deploy", folder, "--key", key, "--endpoint", "my-desk"]
    shift = ["cloud", "shift", "my-desk", "--to", "green", "--percent"]
    shown = slmops(*asked)
    assert '"authMode": "AADToken"' in shown and "green 10 %: {" in shown and "Nothing was sent: --submit" in shown
    assert '"green": 10,' in slmops(*shift, 10)
    assert "Nothing was sent: no workspace is configured" in slmops(*asked, "--submit")
    assert "Nothing was sent: no workspace is configured" in slmops(*shift, 10, "--submit")
    monkeypatch.setenv("AZURE_ML_WORKSPACE", "ws")
    for words in (asked, [*shift, 10]):
        with pytest.raises(CourseError, match="set AZURE_SUBSCRIPTION_ID, AZURE_RESOURCE_GROUP too"):
            slmops(*words, "--submit")
    assert not azure.calls
    configured(monkeypatch)
    slmops("cloud", "register", folder, "--key", key, "--budgets", budgets, "--profile", "till", "--submit")
    assert slmops(*asked, "--submit").endswith("my-desk: blue 100 %.\n")
    assert slmops(*asked, "--submit").endswith("my-desk: blue 100 %, green 0 %.\n")
    assert slmops(*shift, 10, "--submit").endswith("my-desk: green 10 %, blue 90 %.\n")
    assert slmops(*shift, 0, "--submit").endswith("my-desk: blue 100 %.\n")
