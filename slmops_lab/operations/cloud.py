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
def quietly():
    """Inside, the SDK says nothing: it warns for each experimental class, and about its own use of marshmallow."""
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


@quietly()
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


@quietly()
def what_is_sent(job):
    """The body of the request that would create the job, as a dict; whatever looks like a secret is blanked."""
    return _without_secrets(job._to_rest_object().as_dict())


# What a refusal means for whoever reads it, by the status of the service's answer
CURES = {
    401: "the sign-in has expired or is of another tenant: sign in again (az login)",
    403: "the identity may not do this in the workspace: ask for the role AzureML Data Scientist",
    404: "something that it names is not there: check the workspace, the compute and the data assets",
    409: "there is one of that name already: give another name or version",
    429: "too many requests: wait a minute and send it again",
}
QUOTA = re.compile(r"quota|not enough (cores|capacity)", re.IGNORECASE)


@quietly()
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
        raise CourseError(f"Azure did not take the job '{job.display_name or job.name}': {refusal(error)}") from None


def refusal(error):
    """An error of Azure's client as one clause: what the service said, and what to do about it."""
    from azure.core.exceptions import ClientAuthenticationError

    first = (str(error.message).strip().splitlines() or [type(error).__name__])[0]  # the others say it again
    said = " ".join(first.split())[:200].rstrip(".")
    status = 401 if isinstance(error, ClientAuthenticationError) else getattr(error, "status_code", None)
    if QUOTA.search(said):
        return f"{said} (ask for a higher quota, or name a smaller compute)."
    if status in CURES:
        return f"{said} ({CURES[status]})."
    return f"{said}." if not status or status < 500 else f"{said} (the service itself fails: try again later)."


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
