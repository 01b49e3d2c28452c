"""Azure jobs with the real SDK against a resource manager that lives in this process."""

import json
import os
import subprocess
import sys
import time
import traceback

import pytest
from resource_manager import REFUSALS, Credential, ResourceManager, client_of, configured, stand_in

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


TUNE = {
    "name": "desk",
    "model": "azureml://registries/azureml/models/Phi-4-mini-instruct/versions/1",
    "training_data": "azureml:desk-train:1",
    "validation_data": "azureml:desk-valid:1",
}


def test_the_fine_tuning_job_as_the_service_gets_it():
    job = cloud.fine_tuning_job(**TUNE, hyperparameters={"learning_rate": 2e-5}, instance_types=["Standard_NC24"])
    shown = cloud.what_is_sent(job)
    body = shown["properties"]
    assert (body["jobType"], body["displayName"], body["experimentName"]) == ("FineTuning", "desk", "desk")
    details = body["fineTuningDetails"]
    assert (details["taskType"], details["modelProvider"]) == ("chatCompletion", "Custom")
    assert details["model"] == {"uri": TUNE["model"], "jobInputType": "mlflow_model"}
    assert details["trainingData"] == {"uri": "azureml:desk-train:1", "jobInputType": "uri_file"}
    assert details["validationData"]["uri"] == "azureml:desk-valid:1"
    assert details["hyperParameters"] == {"learning_rate": "2e-05"}
    assert body["outputs"]["registered_model"] == {"assetName": "desk", "jobOutputType": "mlflow_model"}
    assert body["resources"]["instanceTypes"] == ["Standard_NC24"]
    assert "computeId" not in body


@pytest.mark.parametrize("build", [lambda: cloud.distillation_job(**PLAN), lambda: cloud.fine_tuning_job(**TUNE)])
def test_what_is_shown_is_what_is_sent(build):
    manager = ResourceManager()
    shown = cloud.what_is_sent(build())["properties"]
    assert cloud.submit(build(), client_of(manager)) == "desk"
    (sent,) = [body["properties"] for body in manager.sent("PUT", "/jobs/desk$")]
    for asset in ("trainingData", "validationData"):  # of which the client asks for the whole id
        whole = sent["fineTuningDetails"][asset].pop("uri")
        name, version = shown["fineTuningDetails"][asset].pop("uri").split(":")[1:]
        assert whole.endswith(f"/data/{name}/versions/{version}")
    assert sent.pop("displayName") == shown.pop("displayName", "desk")
    assert cloud._without_secrets(sent) == shown


@pytest.mark.parametrize(("status", "code", "message", "said"), REFUSALS)
def test_each_refusal_of_a_fine_tuning_is_one_sentence(status, code, message, said):
    manager = ResourceManager(refuse={"code": code, "message": message}, status=status)
    with pytest.raises(CourseError, match=f"did not take the job 'desk': .*{said}") as refusal:
        cloud.submit(cloud.fine_tuning_job(**TUNE), client_of(manager, retry_total=0))
    assert "\n" not in str(refusal.value)


def test_a_sign_in_that_has_expired():
    from azure.core.exceptions import ClientAuthenticationError

    who = Credential(ClientAuthenticationError("DefaultAzureCredential failed.\nAttempted: this and that."))
    with pytest.raises(CourseError, match=r"DefaultAzureCredential failed \(the sign-in has expired") as refusal:
        cloud.submit(cloud.fine_tuning_job(**TUNE), client_of(ResourceManager(), who))
    assert "\n" not in str(refusal.value)


SECRETS = [
    "https://acct.blob.core.windows.net/box?sv=1&sig=abcSECRETdef%3D&se=2",
    "DefaultEndpointsProtocol=https;AccountName=a;AccountKey=abcSECRETdef==;EndpointSuffix=x",
    "Authorization: Bearer abcSECRETdef",
    "token eyJhbGciOiJIUzI1.eyJabcSECRETdef.c2ln",
    "Incorrect API key: sk-abcSECRETdef",
    "api_key='abcSECRETdef'",
]


@pytest.mark.parametrize("leak", SECRETS)
def test_a_secret_in_the_services_own_words_is_told_nowhere(leak, capfd, caplog):
    manager = ResourceManager(refuse={"code": "UserError", "message": f"It failed at {leak}"}, status=400)
    with pytest.raises(CourseError, match=r"It failed at .*\(secret\)") as refusal:
        cloud.submit(cloud.fine_tuning_job(**TUNE), client_of(manager))
    told = "".join(traceback.format_exception(refusal.value)) + "".join(capfd.readouterr()) + caplog.text
    assert "SECRET" not in told and "did not take the job" in told


def test_the_address_of_the_repository_is_not_sent(tmp_path, monkeypatch):
    for words in (["init", "-q"], ["remote", "add", "origin", "https://git.example/SECRET-project.git"]):
        subprocess.run(["git", *words], cwd=tmp_path, check=True)
    monkeypatch.chdir(tmp_path)
    manager = ResourceManager()
    cloud.submit(cloud.fine_tuning_job(**TUNE), client_of(manager))
    assert "SECRET" not in json.dumps(manager.calls) and "GIT_DIR" not in os.environ
    client_of(manager).jobs.create_or_update(cloud.fine_tuning_job(**TUNE))
    assert "SECRET" in json.dumps(manager.calls), "this is what the SDK sends"


def test_too_many_requests_are_not_repeated_for_minutes(monkeypatch):
    manager = stand_in(monkeypatch, fails={"PUT .*/jobs/": (429, "TooManyRequests", "Slow down.")})
    configured(monkeypatch)
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    with pytest.raises(CourseError, match="Slow down"):
        cloud.submit(cloud.fine_tuning_job(**TUNE))
    assert len(manager.sent("PUT", "/jobs/")) == 4  # the SDK's own three repetitions


def test_a_mistake_of_ours_keeps_its_traceback():
    with pytest.raises(TypeError), cloud.asking("do it"):
        raise TypeError("ours")
    with pytest.raises(CourseError, match="Azure did not do it: theirs"), cloud.asking("do it"):
        raise Exception("theirs")  # as the blob store's helper does


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
        ({"model": "Phi-4-mini-instruct"}, "model must be registered"),
    ],
)
def test_wrong_plans(wrong, sentence):
    with pytest.raises(CourseError, match=sentence):
        cloud.fine_tuning_job(**TUNE | wrong) if "model" in wrong else cloud.distillation_job(**PLAN | wrong)


def test_a_fine_tuning_asks_for_validation_data():
    with pytest.raises(CourseError, match="validation data must be registered"):
        cloud.fine_tuning_job(**TUNE | {"validation_data": None})


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
