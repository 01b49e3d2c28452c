"""Azure jobs with the real SDK against a resource manager that lives in this process."""

import base64
import io
import json
import re
import subprocess
import sys
import time
from urllib.parse import urlsplit

import pytest
import requests

from slmops_lab.errors import CourseError
from slmops_lab.operations import cloud
from slmops_lab.task import data

PLAN = {
    "name": "desk",
    "teacher": "big-teacher",
    "teacher_url": "https://teacher.example/v1/chat/completions",
    "student": "azureml://registries/azureml/models/Phi-4-mini-instruct/versions/1",
    "training_data": "azureml:desk-train:1",
    "validation_data": "azureml:desk-valid:1",
}


class ResourceManager(requests.adapters.BaseAdapter):
    """Answers `PUT .../jobs/NAME` with what was put, or with `refuse`; any data asset exists."""

    def __init__(self, refuse=None, status=400):
        super().__init__()
        self.refuse, self.status, self.calls = refuse, status, []

    def close(self):
        pass

    def answer(self, method, path, sent):
        """(status, body)"""
        if method == "GET" and (asset := re.search(r"/data/([^/]+)/versions/([^/]+)$", path)):
            properties = {"dataUri": "azureml://x", "dataType": "uri_file", "isArchived": False}
            return 200, {"id": path, "name": asset[2], "properties": properties}
        if method == "PUT" and "/jobs/" in path:
            made = {**sent, "id": path, "name": path.split("/")[-1]}
            return (self.status, {"error": self.refuse}) if self.refuse else (201, made)
        if method == "GET" and path.endswith("/workspaces/ws"):
            properties = {"discoveryUrl": "https://localhost/discovery", "mlFlowTrackingUri": "azureml://localhost"}
            return 200, {"id": path, "name": "ws", "location": "here", "properties": properties}
        return 404, {"error": {"code": "NotFound", "message": f"{method} {path}"}}

    def send(self, request, **options):
        path, body = urlsplit(request.url).path, request.body
        text = body.read() if hasattr(body, "read") else body
        try:
            sent = json.loads(text) if text else None
        except ValueError:
            sent = None
        self.calls.append((request.method, path, sent))
        status, answer = self.answer(request.method, path, sent)
        response = requests.Response()
        response.status_code, response.url, response.request = status, request.url, request
        response.headers["Content-Type"] = "application/json"
        response._content, response.raw = json.dumps(answer).encode(), io.BytesIO()
        return response


class Credential:
    def get_token(self, *scopes, **options):
        from azure.core.credentials import AccessToken

        def part(content):  # the SDK reads the token, so it has to look like one
            return base64.urlsafe_b64encode(json.dumps(content).encode()).rstrip(b"=").decode()

        claims = {"aud": scopes[0].replace("/.default", ""), "tid": "t", "oid": "o"}
        token = ".".join([part({"alg": "HS256", "typ": "JWT"}), part(claims), "c2ln"])
        return AccessToken(token, int(time.time()) + 3600)


def client_of(manager, **how):
    from azure.ai.ml import MLClient
    from azure.core.pipeline.transport import RequestsTransport

    session = requests.Session()
    session.mount("https://", manager)
    transport = RequestsTransport(session=session, session_owner=False)
    return MLClient(Credential(), "0" * 8, "rg", "ws", transport=transport, enable_telemetry=False, **how)


def test_the_job_as_the_service_gets_it():
    body = cloud.what_is_sent(cloud.distillation_job(**PLAN, hyperparameters={"learning_rate": 2e-5}))["properties"]
    assert body["jobType"] == "FineTuning"
    assert body["properties"]["azureml.enable_distillation"] == "True"
    assert body["properties"]["azureml.teacher_model.endpoint_name"] == "big-teacher"
    details = body["fineTuningDetails"]
    assert details["model"] == {"uri": PLAN["student"], "jobInputType": "mlflow_model"}
    assert details["trainingData"]["uri"] == "azureml:desk-train:1"
    assert details["validationData"]["uri"] == "azureml:desk-valid:1"
    assert details["hyperParameters"] == {"learning_rate": "2e-05"}


def test_the_real_service_request_holds_no_key(monkeypatch, tmp_path):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-very-secret")
    manager = ResourceManager()
    job = cloud.distillation_job(**PLAN)
    assert cloud.submit(job, client_of(manager)) == "desk"
    (body,) = [sent for method, path, sent in manager.calls if method == "PUT"]
    assert body["properties"]["properties"]["azureml.teacher_model.endpoint_name"] == "big-teacher"
    job.dump(tmp_path / "job.yml")
    everything = json.dumps(manager.calls) + (tmp_path / "job.yml").read_text() + json.dumps(cloud.what_is_sent(job))
    assert "sk-very-secret" not in everything
    credentials = json.loads(body["properties"]["properties"]["azureml.connection_information"])
    assert credentials["api_key"] == credentials["credentials"]["key"] == cloud.NO_KEY


def test_a_key_that_somebody_else_put_in_is_not_shown():
    from azure.ai.ml.entities import ServerlessConnection

    job = cloud.distillation_job(**PLAN)
    job.teacher_model_endpoint_connection = ServerlessConnection(
        name="t", endpoint="https://t.example", api_key="sk-very-secret"
    )
    assert "sk-very-secret" in str(job._to_rest_object().as_dict()), "this is what the SDK sends"
    assert "sk-very-secret" not in str(cloud.what_is_sent(job))


def test_a_refusal_is_one_sentence():
    manager = ResourceManager(refuse={"code": "UserError", "message": "Distillation is not offered in this region."})
    with pytest.raises(CourseError, match="Azure did not take the job 'desk': .*not offered in this region") as error:
        cloud.submit(cloud.distillation_job(**PLAN), client_of(manager))
    assert "\n" not in str(error.value)


def test_without_a_workspace_nothing_is_sent(monkeypatch):
    for name in cloud.WORKSPACE:
        monkeypatch.delenv(name, raising=False)
    assert cloud.submit(cloud.distillation_job(**PLAN)) is None
    monkeypatch.setenv("AZURE_SUBSCRIPTION_ID", "s")
    with pytest.raises(CourseError, match="set AZURE_RESOURCE_GROUP, AZURE_ML_WORKSPACE too"):
        cloud.submit(cloud.distillation_job(**PLAN))


@pytest.mark.parametrize(
    "wrong, sentence",
    [
        ({"training_data": "train.jsonl"}, "training data must be registered"),
        ({"validation_data": None}, "validation data must be registered"),
        ({"student": "Phi-4-mini-instruct"}, "student must be registered"),
    ],
)
def test_wrong_plans(wrong, sentence):
    with pytest.raises(CourseError, match=sentence):
        cloud.distillation_job(**PLAN | wrong)


def test_nothing_is_printed():
    """In a process of its own: the SDK warns once for each of its classes."""
    code = f"from slmops_lab.operations import cloud; cloud.what_is_sent(cloud.distillation_job(**{PLAN!r}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_records_as_chats(colours):
    desk = data.load(colours)
    lines = [json.loads(line) for line in cloud.chat_lines(desk.task, desk.train[:1] + desk.pool[:1]).splitlines()]
    assert [m["role"] for m in lines[0]["messages"]] == ["system", "user", "assistant"]
    assert lines[0]["messages"][2]["content"] == desk.task.write(desk.train[0]["answer"])
    assert [m["role"] for m in lines[1]["messages"]] == ["system", "user"]
