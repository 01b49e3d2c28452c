"""Azure Machine Learning: the service's own jobs, built here, looked at, and sent where a workspace is configured.

No key ever enters a job: the service finds the teacher's key by the name of the workspace's connection, and who asks
is known by a sign-in. Building and looking costs nothing and needs no network; what `submit` sends costs money, and
nothing waits for its result. What models and endpoints need besides stands in `cloud_models` and `cloud_rollout`.
"""

import contextlib
import json
import logging
import os
import re
import sys
import warnings

from slmops_lab.errors import CourseError

WORKSPACE = ("AZURE_SUBSCRIPTION_ID", "AZURE_RESOURCE_GROUP", "AZURE_ML_WORKSPACE")
NO_KEY = "(stays in the workspace)"
SECRET = re.compile(r"key|secret|token$|password|credential", re.IGNORECASE)
WHERE = "(of the workspace)"  # the region, which only the workspace knows
# what looks like a secret inside a sentence of the service: of storage addresses, of connections, of tokens
SECRET_PART = re.compile(
    r"(?i)\b(?:sig|sharedaccesssignature|accountkey|sharedaccesskey|api[-_]?key|password)[\"']?\s*[=:]\s*[^&;,\s]+"
    r"|\bbearer\s+[^\s,;\"']+|\beyJ[\w-]+\.[\w-]+\.[\w-]*|\bsk-[\w-]{6,}"
)


@contextlib.contextmanager
def quietly():
    """Inside, the SDK says nothing: it warns for each experimental class, and about its own use of marshmallow.

    The log of its telemetry, which is switched off, would still tell every logger here what the service answered.
    """
    with warnings.catch_warnings(action="ignore"):
        import azure.ai.ml  # noqa: F401  sets its logger's level, so ours comes after it

        logging.getLogger("azure.ai.ml").setLevel(logging.ERROR)
        activities = logging.getLogger("azure.ai.ml._telemetry")
        activities.propagate, activities.handlers = False, [logging.NullHandler()]
        yield


@contextlib.contextmanager
def _without_git():
    """Inside, the SDK finds no Git: it would add address and branch of the folder's repository to a job, unasked."""
    before = os.environ.get("GIT_DIR")
    os.environ["GIT_DIR"] = os.devnull
    try:
        yield
    finally:
        os.environ.pop("GIT_DIR")
        if before is not None:
            os.environ["GIT_DIR"] = before


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

    _must_be_ids({"student": student, "training data": training_data, "validation data": validation_data})
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
        hyperparameters=_as_texts(hyperparameters),
    )


@quietly()
def fine_tuning_job(
    name, model, training_data, validation_data, hyperparameters=None, compute=None, instance_types=None
):
    """The service's fine-tuning job: a model of its catalogue, tuned on chats that have their answers.

    model: the id of an MLflow model; the data are ids of registered `chat_lines` files (azureml:NAME:VERSION). What
    it makes is registered as a model called name. compute: of the workspace, instance_types: machines that may be
    taken; without either the service chooses. Follows azure.ai.ml.finetuning.create_finetuning_job of azure-ai-ml
    1.35, an experimental function. Raises CourseError for data or a model that is not named by an id.
    """
    from azure.ai.ml.finetuning import FineTuningTaskType, create_finetuning_job

    # without validation data the function of 1.35.2 falls over a variable that it has not set
    _must_be_ids({"model": model, "training data": training_data, "validation data": validation_data})
    return create_finetuning_job(
        model=model,
        task=FineTuningTaskType.CHAT_COMPLETION,
        training_data=training_data,
        validation_data=validation_data,
        output_model_name_prefix=name,
        hyperparameters=_as_texts(hyperparameters),
        compute=compute,
        instance_types=instance_types,
        name=name,
        display_name=name,
        experiment_name=name,
    )


def _must_be_ids(given):
    for what, path in given.items():
        if not str(path).startswith("azureml:"):
            raise CourseError(f"The {what} must be registered in Azure and named by an id (azureml:...), not {path!r}.")


def _as_texts(hyperparameters):
    return {key: str(value) for key, value in (hyperparameters or {}).items()}


@quietly()
def what_is_sent(thing):
    """The body of the request that would create a job, model, environment, endpoint or deployment, as a dict.

    Whatever looks like a secret is blanked. Ids and addresses that the service gives first are not there yet.
    """
    from azure.ai.ml.entities import OnlineDeployment, OnlineEndpoint

    if isinstance(thing, OnlineEndpoint):
        body = thing._to_rest_online_endpoint(WHERE)
    else:
        body = thing._to_rest_object(WHERE) if isinstance(thing, OnlineDeployment) else thing._to_rest_object()
    return _without_secrets(body.as_dict())


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

    Raises CourseError as `workspace` does, and with the service's reason where it refuses.
    """
    client = client or workspace()
    if client is None:
        return None
    with _without_git(), asking(f"take the job '{job.display_name or job.name}'"):
        return client.jobs.create_or_update(job).name


@contextlib.contextmanager
def asking(what):
    """Inside, an error of Azure's is a CourseError of one sentence that Azure did not do `what`, without any secret.

    What the SDK prints meanwhile, such as a dot for each look at a long operation, goes to standard error.
    """
    from azure.core.exceptions import AzureError

    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    except Exception as error:
        if not isinstance(error, AzureError) and type(error) is not Exception:  # the SDK raises bare ones, too
            raise
        raise CourseError(f"Azure did not {what}: {refusal(error)}") from None


def finished(poller, what, minutes):
    """Wait for a long operation of the service, at most so many minutes; returns its result, raises its error.

    Raises CourseError where it is not finished then: it goes on without us.
    """
    poller.wait(60 * minutes)
    if not poller.done():
        going_on = "it goes on in the service, look there before you repeat it"
        raise CourseError(f"{what} is not finished after {minutes:g} minutes: {going_on}.")
    return poller.result()


def refusal(error):
    """An error of Azure's client as one clause: what the service said, and what to do about it."""
    from azure.core.exceptions import ClientAuthenticationError

    text = str(getattr(error, "message", None) or error).strip()
    first = (text.splitlines() or [type(error).__name__])[0]  # the others say it again
    said = " ".join(SECRET_PART.sub("(secret)", first).split())[:200].rstrip(".")
    status = 401 if isinstance(error, ClientAuthenticationError) else getattr(error, "status_code", None)
    if QUOTA.search(said):
        return f"{said} (ask for a higher quota, or name a smaller compute)."
    if status in CURES:
        return f"{said} ({CURES[status]})."
    return f"{said}." if not status or status < 500 else f"{said} (the service itself fails: try again later)."


def workspace():
    """The client of the configured workspace, None where none is configured.

    The workspace is that of AZURE_SUBSCRIPTION_ID, AZURE_RESOURCE_GROUP and AZURE_ML_WORKSPACE, the
    identity what azure-identity's DefaultAzureCredential finds. Raises CourseError where only part of the
    configuration is there.
    """
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
