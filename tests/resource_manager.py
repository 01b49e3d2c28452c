"""A fake Azure Resource Manager inside the process: the real SDK talks to it through an adapter of requests.

`ResourceManager` knows jobs and data, `Azure` models, environments, endpoints and a blob store as well, and long
operations. What the service really answers was not recorded, it follows the SDK's own models.
"""

import base64
import io
import json
import re
import socket
import time
from urllib.parse import urlsplit

import requests

SAS = "sv=2025-01-05&sig=PLANTED-SIGNATURE%3D"  # what a datastore's secret looks like


class ResourceManager(requests.adapters.BaseAdapter):
    """Answers `PUT .../jobs/NAME` with what was put, or with `refuse`; any data asset exists."""

    def __init__(self, refuse=None, status=400):
        super().__init__()
        self.refuse, self.status, self.calls = refuse, status, []

    def close(self):
        pass

    def answer(self, method, path, sent):
        """(status, body) or (status, body, headers)"""
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
        url, body = urlsplit(request.url), request.body
        text = body.read() if hasattr(body, "read") else body
        try:
            sent = json.loads(text) if text else None
        except ValueError:
            sent = None
        self.calls.append((request.method, url.path, sent))
        at_storage, method = ".blob." in url.netloc, request.method
        status, answer, *headers = self.stored(method, url) if at_storage else self.answer(method, url.path, sent)
        response = requests.Response()
        response.status_code, response.url, response.request = status, request.url, request
        response.headers["Content-Type"] = "application/json"
        response.headers.update(*headers)
        content = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        response._content, response.raw = content, io.BytesIO(content)
        return response

    def sent(self, method, pattern):
        """Bodies of the calls of that method to such paths, in their order."""
        return [body for how, path, body in self.calls if how == method and re.search(pattern, path)]


class Azure(ResourceManager):
    """A workspace that keeps what it is given. `fails`: {pattern of 'METHOD path': (status, code, message)}.

    slow: looks until a long operation is finished. outcome: how it ends, 'Succeeded' or {'code', 'message'}.
    """

    def __init__(self, fails=None, slow=1, outcome="Succeeded"):
        super().__init__()
        self.kept, self.uploaded, self.fails, self.slow, self.outcome = {}, [], fails or {}, slow, outcome
        self.looks = 0

    def failure(self, method, path):
        for pattern, (status, code, message) in self.fails.items():
            if re.search(pattern, f"{method} {path}"):
                return status, {"error": {"code": code, "message": message}}
        return None

    def stored(self, method, url):
        """What the blob store answers."""
        if failure := self.failure(method, url.path):
            status, told = failure
            xml = f"<?xml version='1.0'?><Error><Code>{told['error']['code']}</Code>"
            xml += f"<Message>{told['error']['message']}</Message></Error>"
            headers = {"Content-Type": "application/xml", "x-ms-error-code": told["error"]["code"]}
            return status, xml.encode(), headers
        if method == "HEAD":
            return 404, b"", {"x-ms-error-code": "BlobNotFound"}
        if "comp=metadata" not in url.query:
            self.uploaded.append(url.path)
        stamp = {"ETag": '"0x1"', "Last-Modified": "Mon, 30 Nov 2026 05:00:00 GMT"}
        return 200 if "comp=metadata" in url.query else 201, b"", stamp

    def answer(self, method, path, sent):
        if failure := self.failure(method, path):
            return failure
        if "/datastores/" in path:
            if path.endswith("/listSecrets"):
                return 200, {"secretsType": "Sas", "sasToken": SAS}
            where = {"datastoreType": "AzureBlob", "accountName": "acct", "containerName": "box", "isDefault": True}
            where |= {"credentials": {"credentialsType": "AccountKey"}, "endpoint": "core.windows.net"}
            return 200, {"id": path, "name": "workspaceblobstore", "properties": where | {"protocol": "https"}}
        if "OperationsStatus" in path:
            self.looks += 1
            ended = {"status": self.outcome} if isinstance(self.outcome, str) else {"status": "Failed"}
            ended |= {} if isinstance(self.outcome, str) else {"error": self.outcome}
            status = ended if self.looks >= self.slow else {"status": "InProgress"}
            return 200, status | {"id": path, "name": "op"}, {"Retry-After": "0.01"}
        if re.search(r"/(models|environments|onlineEndpoints)/", path):
            return self.resource(method, path, sent)
        return super().answer(method, path, sent)

    def resource(self, method, path, sent):
        if method == "PUT":
            made = {**sent, "id": path, "name": path.rsplit("/", 1)[-1]}
            if "/models/" in path:
                made["properties"] = {"flavors": {}, **sent["properties"]}
            if "/onlineEndpoints/" not in path:
                self.kept[path] = made
                return 201, made
            made["properties"] = {**sent["properties"], "provisioningState": "Succeeded"}
            if "/deployments/" in path:
                made["properties"]["scaleSettings"] = {"scaleType": "Default"}
            self.kept[path], self.looks = made, 0
            waiting = {**made, "properties": made["properties"] | {"provisioningState": "Updating"}}
            where = path[: path.index("/providers/")].replace("/resourceGroups/rg", "") + "/mfeOperationsStatus/op"
            return 201, waiting, {"Azure-AsyncOperation": f"https://management.azure.com{where}", "Retry-After": "0.01"}
        if path.endswith("/deployments"):
            return 200, {"value": [made for there, made in self.kept.items() if there.startswith(path + "/")]}
        if path in self.kept:
            return 200, self.kept[path]
        return 404, {"error": {"code": "NotFound", "message": f"There is no {path.rsplit('/', 1)[-1]}."}}


class Credential:
    """A sign-in. error: what happens instead."""

    def __init__(self, error=None):
        self.error = error

    def get_token(self, *scopes, **options):
        from azure.core.credentials import AccessToken

        if self.error:
            raise self.error

        def part(content):  # the SDK reads the token, so it has to look like one
            return base64.urlsafe_b64encode(json.dumps(content).encode()).rstrip(b"=").decode()

        claims = {"aud": scopes[0].replace("/.default", ""), "tid": "t", "oid": "o"}
        token = ".".join([part({"alg": "HS256", "typ": "JWT"}), part(claims), "c2ln"])
        return AccessToken(token, int(time.time()) + 3600)


def client_of(manager, credential=None, **how):
    from azure.ai.ml import MLClient
    from azure.core.pipeline.transport import RequestsTransport

    session = requests.Session()
    session.mount("https://", manager)
    transport = RequestsTransport(session=session, session_owner=False)
    who = credential or Credential()
    return MLClient(who, "0" * 8, "rg", "ws", transport=transport, enable_telemetry=False, **how)


def no_way_out(*address, **options):
    raise PermissionError(f"the network is refused in tests: {address[-1]}")


def stand_in(monkeypatch, **how):
    """An `Azure` behind every session of requests, also the blob store's own, and no other way out of this process."""
    manager = Azure(**how)
    monkeypatch.setattr(requests.Session, "get_adapter", lambda session, url: manager)
    monkeypatch.setattr(socket.socket, "connect", no_way_out)
    monkeypatch.setattr(socket, "getaddrinfo", no_way_out)
    return manager


def configured(monkeypatch, who=None):
    """A workspace in the environment, and a sign-in that works, or `who`."""
    for name in ("AZURE_SUBSCRIPTION_ID", "AZURE_RESOURCE_GROUP", "AZURE_ML_WORKSPACE"):
        monkeypatch.setenv(name, {"AZURE_SUBSCRIPTION_ID": "0" * 8, "AZURE_RESOURCE_GROUP": "rg"}.get(name, "ws"))
    monkeypatch.setattr("azure.identity.DefaultAzureCredential", lambda: who or Credential())


def signed_package(folder, name="desk", version="1.2.0", hidden=None):
    """(package of a model that is none, public key, budgets of which it keeps 'till' and not 'watch')."""
    from slmops_lab.deployment import package

    private, public = package.make_keys(folder / "keys")
    model = folder / f"model-{version}"
    model.mkdir()
    for file in ("genai_config.json", "model.onnx", "model.onnx.data", "tokenizer.json", *([hidden] if hidden else [])):
        (model / file).write_text(f"content of {file}")
    metrics, lineage = {"exact_match": 0.7, "megabytes": 27.0}, {"data": "abc123"}
    out = folder / f"{name}-{version}"
    package.pack(model, out, name, version, "Apache-2.0", metrics, lineage, private, about="Sorts messages.")
    budgets = folder / "budgets.yaml"
    budgets.write_text("till: {at_least: {exact_match: 0.6}}\nwatch: {at_most: {megabytes: 9}}\n")
    return out, public, budgets


# (status, the service's code and message, what a user reads of it)
REFUSALS = [
    (401, "ExpiredAuthenticationToken", "Expired.", r"Expired \(the sign-in has expired"),
    (403, "AuthorizationFailed", "No.", r"No \(the identity may not do this"),
    (404, "NotFound", "No such thing.", r"No such thing \(something that it names is not there"),
    (409, "Conflict", "Exists.", r"Exists \(there is one of that name already"),
    (400, "OutOfQuota", "Not enough quota.", r"Not enough quota \(ask for a higher quota"),
    (429, "TooManyRequests", "Slow down.", r"Slow down \(too many requests: wait a minute"),
    (500, "InternalServerError", "Oops.", r"Oops \(the service itself fails: try again later\)"),
]
