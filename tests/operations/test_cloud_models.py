"""A signed package as an Azure model, with the real SDK and a workspace inside this process."""

import json
import traceback

import pytest
from resource_manager import REFUSALS, SAS, client_of, configured, signed_package, stand_in
from typer.testing import CliRunner

from slmops_lab.course import cli
from slmops_lab.deployment import package
from slmops_lab.errors import CourseError
from slmops_lab.files import sha256_of
from slmops_lab.operations import cloud, cloud_models


@pytest.fixture
def desk(tmp_path):
    """(package, public key, budgets)"""
    return signed_package(tmp_path)


def test_the_model_as_the_service_gets_it(desk, monkeypatch):
    folder, key, budgets = desk
    azure = stand_in(monkeypatch)
    model = cloud_models.asset(folder, key, budgets, "till")
    shown = cloud.what_is_sent(model)["properties"]
    assert shown["tags"] == {"gate": "passed", "profile": "till", "license": "Apache-2.0"}
    told, listed = shown["properties"], package.signed_files(folder)
    assert told["slmops.signature_sha256"] == sha256_of(folder / "model.sig")
    assert told["slmops.sha256.model.onnx.data"] == listed["model.onnx.data"]
    assert told["slmops.signer_sha256"] == sha256_of(key)
    assert (told["slmops.version"], told["slmops.gate"], told["slmops.gate_reasons"]) == ("1.2.0", "passed", "none")
    assert (told["slmops.metric.exact_match"], told["slmops.lineage.data"]) == ("0.7", "abc123")
    assert cloud_models.register(model, client_of(azure)).endswith("/models/desk/versions/1.2.0")
    (sent,) = [body["properties"] for body in azure.sent("PUT", "/models/desk/versions/1.2.0$")]
    assert sent.pop("modelUri").endswith("/desk-1.2.0") and shown.pop("modelUri") == str(folder)
    assert sent == shown and sent["modelType"] == "custom_model"
    uploaded = {path.split("/desk-1.2.0/")[1] for path in azure.uploaded}
    assert uploaded == {*listed, package.SIGNATURE}


def test_a_verdict_of_the_gate_is_noted_whatever_it_is(desk):
    folder, key, budgets = desk
    told = cloud_models.asset(folder, key, budgets, "watch").properties
    assert (told["slmops.gate"], told["slmops.gate_profile"]) == ("failed", "watch")
    assert told["slmops.gate_reasons"] == "megabytes is 27 (at most 9)"
    assert cloud_models.asset(folder, key).tags["gate"] == "not asked"


def test_what_does_not_verify_is_not_even_shown(desk, tmp_path):
    folder, key, budgets = desk
    (folder / "model.onnx").write_text("another")
    with pytest.raises(CourseError, match="model.onnx was changed after it was signed"):
        cloud_models.asset(folder, key, budgets, "till")
    _, other = package.make_keys(tmp_path / "others")
    with pytest.raises(CourseError, match="was not made with this key"):
        cloud_models.asset(folder, other)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"profile": "till"}, "needs both"),
        ({"budgets": "budgets.yaml"}, "needs both"),
        ({"budgets": "budgets.yaml", "profile": "till"}, "budgets.yaml: No such file"),
    ],
)
def test_a_gate_that_is_half_given(desk, given, said):
    with pytest.raises(CourseError, match=said):
        cloud_models.asset(*desk[:2], **given)


@pytest.mark.parametrize("hidden", cloud_models.LEAVES_OUT)
def test_a_package_of_which_a_part_would_stay_here(tmp_path, hidden):
    folder, key, _ = signed_package(tmp_path, hidden=hidden)
    with pytest.raises(CourseError, match=f"has a {hidden}, and Azure's client leaves out"):
        cloud_models.asset(folder, key)


def test_names_and_versions_are_written_as_azure_takes_them(tmp_path):
    folder, key, _ = signed_package(tmp_path, name="My desk äöü", version="1.0+north")
    model = cloud_models.asset(folder, key)
    assert (model.name, model.version, model.properties["slmops.version"]) == ("My-desk", "1.0_north", "1.0+north")
    with pytest.raises(CourseError, match="Azure cannot name a model '-äö-'"):
        cloud_models.asset_name("-äö-")


def test_a_version_is_registered_once(desk, tmp_path, monkeypatch):
    folder, key, budgets = desk
    azure = stand_in(monkeypatch)
    client = client_of(azure)
    there = cloud_models.register(cloud_models.asset(folder, key), client)
    assert cloud_models.register(cloud_models.asset(folder, key), client) == there
    assert len(azure.sent("PUT", "/models/")) == 1
    with pytest.raises(CourseError, match="the gate is 'not asked' and not 'passed', so pack it with a new version"):
        cloud_models.register(cloud_models.asset(folder, key, budgets, "till"), client)
    (tmp_path / "again").mkdir()
    again, key, _ = signed_package(tmp_path / "again")
    with pytest.raises(CourseError, match="Azure has another desk 1.2.0 already"):
        cloud_models.register(cloud_models.asset(again, key), client)
    assert len(azure.sent("PUT", "/models/")) == 1


@pytest.mark.parametrize(("status", "code", "message", "said"), REFUSALS)
def test_each_refusal_is_one_sentence(desk, monkeypatch, status, code, message, said):
    azure = stand_in(monkeypatch, fails={"PUT .*/models/": (status, code, message)})
    with pytest.raises(CourseError, match=f"did not register desk 1.2.0: .*{said}") as refusal:
        cloud_models.register(cloud_models.asset(*desk[:2]), client_of(azure, retry_total=0))
    assert "\n" not in str(refusal.value)


def test_an_upload_that_is_refused_ends(desk, monkeypatch):
    """Without its progress bar the SDK would wait for ever: it looks at what became of a file only to move the bar."""
    azure = stand_in(monkeypatch, fails={"PUT /box/.*tokenizer": (403, "AuthorizationFailure", "No writing here.")})
    with pytest.raises(CourseError, match="did not register desk 1.2.0: No writing here") as refusal:
        cloud_models.register(cloud_models.asset(*desk[:2]), client_of(azure))
    assert "\n" not in str(refusal.value) and not azure.sent("PUT", "/models/")


def test_no_key_in_any_file_output_or_traceback(desk, tmp_path, monkeypatch, capfd, caplog):
    """What is planted: the signer's private key, an API key, the sign-in, and the secret of the blob store."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-planted-in-the-environment")
    folder, key, _ = desk
    private = (tmp_path / "keys" / "private.pem").read_text().splitlines()[1]
    refused = f"Signature did not match: https://acct.blob.core.windows.net/box?{SAS}"
    azure = stand_in(monkeypatch)
    configured(monkeypatch)
    caplog.set_level("DEBUG")
    for name in ("azure.core", "azure.ai.ml", "azure.storage"):
        caplog.set_level("DEBUG", name)
    told = [
        json.dumps(cloud.what_is_sent(cloud_models.asset(folder, key))),
        cloud_models.register(cloud_models.asset(folder, key)),
    ]
    for where in ("PUT .*/models/", "PUT /box/.*tokenizer", "listSecrets"):
        azure.kept, azure.fails = {}, {where: (403, "AuthenticationFailed", refused)}
        try:
            told.append(cloud_models.register(cloud_models.asset(folder, key)))
        except CourseError as error:
            told += traceback.format_exception(error)
    files = [file for file in tmp_path.rglob("*") if file.is_file() and file.name != "private.pem"]
    told += [file.read_text(errors="replace") for file in files] + [
        *capfd.readouterr(),
        caplog.text,
        json.dumps(azure.calls),
    ]
    everything = "\n".join(told)
    assert "register desk" in everything and "listSecrets" in everything
    for planted in ("PLANTED-SIGNATURE", "sk-planted", private, "eyJ"):
        assert planted not in everything


def slmops(*words):
    return CliRunner().invoke(cli.app, [*map(str, words)], catch_exceptions=False)


def test_from_the_command_line(desk, monkeypatch):
    folder, key, budgets = desk
    azure = stand_in(monkeypatch)
    asked = ["cloud", "register", folder, "--key", key, "--budgets", budgets, "--profile", "till"]
    shown = slmops(*asked)
    assert '"slmops.gate": "passed"' in shown.output and "Nothing was sent: --submit sends it" in shown.output
    assert "no workspace is configured (AZURE_SUBSCRIPTION_ID" in slmops(*asked, "--submit").output
    monkeypatch.setenv("AZURE_RESOURCE_GROUP", "rg")
    with pytest.raises(CourseError, match="set AZURE_SUBSCRIPTION_ID, AZURE_ML_WORKSPACE too"):
        slmops(*asked, "--submit")
    assert not azure.calls
    configured(monkeypatch)
    assert "Registered as /subscriptions/00000000/" in slmops(*asked, "--submit").output
