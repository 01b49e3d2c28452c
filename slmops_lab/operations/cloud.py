"""Azure Machine Learning: the service's own jobs, built here, looked at, and sent where a workspace is configured.

No key ever enters a job: the service finds the teacher's key by the name of the workspace's connection. Building and
looking costs nothing and needs no network; what `submit` sends costs money, and nothing here waits for its result.
"""

import contextlib
import json
import logging
import os
import re
import warnings

from slmops_lab.errors import CourseError

WORKSPACE = ("AZURE_SUBSCRIPTION_ID", "AZURE_RESOURCE_GROUP", "AZURE_ML_WORKSPACE")
NO_KEY = "(stays in the workspace)"
SECRET = re.compile(r"key|secret|token$|password|credential", re.IGNORECASE)


@contextlib.contextmanager
def _quiet():
    """Without a warning for every experimental class, and for the SDK's own use of marshmallow."""
    with warnings.catch_warnings(action="ignore"):
        import azure.ai.ml  # noqa: F401  sets its logger's level, so ours comes after it

        logging.getLogger("azure.ai.ml").setLevel(logging.ERROR)
        yield


def chat_lines(task, records):
    """Records as the service reads them: JSON lines of {'messages'}, one turn each; returns the text.

    The answer, where a record has one, is the last message; the teacher writes its own in its place.
    """
    lines = []
    for record in records:
        messages = task.messages(record["text"], explain=True)
        if record.get("answer"):
            messages.append({"role": "assistant", "content": task.write(record["answer"])})
        lines.append(json.dumps({"messages": messages}, ensure_ascii=False) + "\n")
    return "".join(lines)


@_quiet()
def distillation_job(
    name, teacher, teacher_url, student, training_data, validation_data, max_tokens=64, hyperparameters=None
):
    """The service's distillation job: a teacher endpoint labels data, a student is tuned on it.

    teacher is the name of the workspace's connection to the endpoint teacher_url; student the id of an MLflow
    model; the data are ids of registered `chat_lines` files (azureml:NAME:VERSION), of at most max_tokens an answer.
    Follows azure.ai.ml.model_customization.distillation of azure-ai-ml 1.35, an experimental function. Raises
    CourseError for data or a model that is not named by an id.
    """
    from azure.ai.ml import Input
    from azure.ai.ml.constants import DataGenerationTaskType, DataGenerationType
    from azure.ai.ml.entities import ServerlessConnection
    from azure.ai.ml.model_customization import EndpointRequestSettings, TeacherModelSettings, distillation

    for what, path in {"student": student, "training data": training_data, "validation data": validation_data}.items():
        if not str(path).startswith("azureml:"):
            raise CourseError(f"The {what} must be registered in Azure and named by an id (azureml:...), not {path!r}.")
    return distillation(
        name=name,
        experiment_name=name,
        data_generation_type=DataGenerationType.LABEL_GENERATION,
        data_generation_task_type=DataGenerationTaskType.CONVERSATION,  # the one that takes chats
        # the class insists on a key, and would write it in clear into the job
        teacher_model_endpoint_connection=ServerlessConnection(name=teacher, endpoint=teacher_url, api_key=NO_KEY),
        student_model=Input(type="mlflow_model", path=student),
        training_data=Input(type="uri_file", path=training_data),
        validation_data=Input(type="uri_file", path=validation_data),
        teacher_model_settings=TeacherModelSettings(
            inference_parameters={"temperature": 0.0, "max_tokens": max_tokens},
            endpoint_request_settings=EndpointRequestSettings(request_batch_size=10, min_endpoint_success_ratio=0.9),
        ),
        hyperparameters={key: str(value) for key, value in (hyperparameters or {}).items()},
    )


@_quiet()
def what_is_sent(job):
    """The body of the request that would create the job, as a dict; whatever looks like a secret is blanked."""
    return _without_secrets(job._to_rest_object().as_dict())


@_quiet()
def submit(job, client=None):
    """Create the job; returns its name as the service knows it, or None where no workspace is configured.

    The workspace is that of AZURE_SUBSCRIPTION_ID, AZURE_RESOURCE_GROUP and AZURE_ML_WORKSPACE, the
    identity what azure-identity's DefaultAzureCredential finds. Raises CourseError where only part of the
    configuration is there, and with the service's reason where it refuses.
    """
    from azure.core.exceptions import AzureError

    client = client or _workspace()
    if client is None:
        return None
    try:
        return client.jobs.create_or_update(job).name
    except AzureError as error:
        reason = " ".join(str(error.message).split())[:200]
        raise CourseError(f"Azure did not take the job '{job.name}': {reason}") from None


def _workspace():
    given = {name: os.environ.get(name) for name in WORKSPACE}
    if not any(given.values()):
        return None
    if missing := [name for name, value in given.items() if not value]:
        raise CourseError(f"The Azure workspace is only half configured: set {', '.join(missing)} too.")
    from azure.ai.ml import MLClient
    from azure.identity import DefaultAzureCredential

    return MLClient(DefaultAzureCredential(), *given.values(), enable_telemetry=False)


def _without_secrets(value, name=""):
    if isinstance(value, dict):
        return {key: _without_secrets(inner, key) for key, inner in value.items()}
    if isinstance(value, list):
        return [_without_secrets(inner, name) for inner in value]
    if isinstance(value, str) and value.startswith("{"):
        try:  # the SDK hides a whole connection in one property
            return _without_secrets(json.loads(value))
        except ValueError:
            return value
    return NO_KEY if SECRET.search(name) and value else value
