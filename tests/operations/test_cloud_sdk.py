"""What of Azure's SDK the library relies on, by name: a version that has changed it goes red here, and says where."""

import ast
import functools
import importlib
import inspect

import pytest

from slmops_lab.operations import cloud
from slmops_lab.settings import ROOT

# module:name, and its parameters in their order
SIGNATURES = {
    "azure.ai.ml:MLClient": "credential subscription_id resource_group_name workspace_name registry_name **kwargs",
    "azure.ai.ml:load_job": "source relative_origin params_override **kwargs",
    "azure.ai.ml:Input": "type path mode path_on_compute default optional min max enum description datastore **kwargs",
    "azure.ai.ml.entities:ServerlessConnection": "endpoint api_key metadata **kwargs",
    "azure.ai.ml.entities:Model": "name version type path utc_time_created flavors description tags properties stage "
    "default_deployment_template allowed_deployment_templates **kwargs",
    "azure.ai.ml.entities:BuildContext": "dockerfile_path path",
    "azure.ai.ml.entities:Environment": "name version description image build conda_file tags properties datastore "
    "**kwargs",
    "azure.ai.ml.entities:ManagedOnlineEndpoint": "name tags properties auth_mode description location traffic "
    "mirror_traffic identity kind public_network_access **kwargs",
    "azure.ai.ml.entities:ManagedOnlineDeployment": "name endpoint_name tags properties description model "
    "code_configuration environment app_insights_enabled scale_settings request_settings liveness_probe "
    "readiness_probe environment_variables instance_type instance_count egress_public_network_access code_path "
    "scoring_script data_collector **kwargs",
    "azure.ai.ml.entities:OnlineRequestSettings": "max_concurrent_requests_per_instance request_timeout_ms "
    "max_queue_wait_ms",
    "azure.ai.ml.entities:ProbeSettings": "failure_threshold success_threshold timeout period initial_delay",
    "azure.ai.ml.entities:OnlineEndpoint._to_rest_online_endpoint": "self location",
    "azure.ai.ml.entities:ManagedOnlineDeployment._to_rest_object": "self location",
    "azure.ai.ml.entities:Model._to_rest_object": "self",
    "azure.ai.ml.entities:Environment._to_rest_object": "self",
    "azure.ai.ml.model_customization:distillation": "experiment_name data_generation_type data_generation_task_type "
    "teacher_model_endpoint_connection student_model training_data validation_data teacher_model_settings "
    "prompt_settings hyperparameters resources **kwargs",
    "azure.ai.ml.model_customization:EndpointRequestSettings": "request_batch_size min_endpoint_success_ratio",
    "azure.ai.ml.model_customization:TeacherModelSettings": "inference_parameters endpoint_request_settings",
    "azure.ai.ml.finetuning:create_finetuning_job": "model task training_data output_model_name_prefix "
    "validation_data hyperparameters compute instance_types job_tier **kwargs",
    "azure.ai.ml.operations:JobOperations.create_or_update": "self job description compute tags experiment_name "
    "skip_validation **kwargs",
    "azure.ai.ml.operations:ModelOperations.create_or_update": "self model",
    "azure.ai.ml.operations:ModelOperations.get": "self name version label",
    "azure.ai.ml.operations:OnlineEndpointOperations.get": "self name local",
    "azure.ai.ml.operations:OnlineEndpointOperations.begin_create_or_update": "self endpoint local",
    "azure.ai.ml.operations:OnlineDeploymentOperations.begin_create_or_update": "self deployment local vscode_debug "
    "skip_script_validation local_enable_gpu **kwargs",
    "azure.core.polling:LROPoller.wait": "self timeout",
    "azure.core.polling:LROPoller.done": "self",
    "azure.core.polling:LROPoller.result": "self timeout",
    "azure.identity:DefaultAzureCredential": "**kwargs",
}
VALUES = {
    "azure.ai.ml.constants:AssetTypes.CUSTOM_MODEL": "custom_model",
    "azure.ai.ml.constants:DataGenerationType.LABEL_GENERATION": "label_generation",
    "azure.ai.ml.constants:DataGenerationTaskType.CONVERSATION": "CONVERSATION",
    "azure.ai.ml.finetuning:FineTuningTaskType.CHAT_COMPLETION": "ChatCompletion",
    "azure.ai.ml.constants._common:AAD_TOKEN_RESOURCE_ENDPOINT": "https://ml.azure.com",  # whom callers' tokens are for
}
FAMILIES = {  # class: what it is a kind of
    "azure.core.exceptions:ClientAuthenticationError": "azure.core.exceptions:AzureError",
    "azure.core.exceptions:ResourceNotFoundError": "azure.core.exceptions:AzureError",
    "azure.ai.ml.exceptions:MlException": "azure.core.exceptions:AzureError",
    "azure.ai.ml.entities:ManagedOnlineEndpoint": "azure.ai.ml.entities:OnlineEndpoint",
    "azure.ai.ml.entities:ManagedOnlineDeployment": "azure.ai.ml.entities:OnlineDeployment",
}


@cloud.quietly()
def found(name):
    module, path = name.split(":")
    return functools.reduce(getattr, path.split("."), importlib.import_module(module))


@pytest.mark.parametrize("name", SIGNATURES)
def test_parameters_are_those_that_we_know(name):
    parameters = inspect.signature(found(name)).parameters.values()
    assert " ".join(str(p).split(":")[0].split("=")[0] for p in parameters) == SIGNATURES[name]


@pytest.mark.parametrize("name", VALUES)
def test_values_are_those_that_we_know(name):
    assert found(name) == VALUES[name]


@pytest.mark.parametrize("name", FAMILIES)
def test_kinds_are_those_that_we_know(name):
    assert issubclass(found(name), found(FAMILIES[name]))


def test_nothing_of_the_sdk_is_used_that_is_not_looked_at_here():
    looked_at = {name.split(".")[0] for names in (SIGNATURES, VALUES, FAMILIES) for name in spread(names)}
    used = set()
    for file in (ROOT / "slmops_lab").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("azure."):
                used |= {alias.name for alias in node.names}
    assert len(used) > 15 and used <= looked_at, used - looked_at


def spread(names):
    """Names without their modules, of keys and of values that are names."""
    values = names.values() if names is FAMILIES else ()
    return [name.split(":")[1] for name in (*names, *values)]
