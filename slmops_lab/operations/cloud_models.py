"""A signed package of this course as a model of an Azure Machine Learning workspace.

Version, hashes and the gate's verdict go with it: as properties, which nobody can change there, and as tags, which
can be searched. Only what verifies is registered; whether it may go out is the gate's to say, and `cloud_rollout`
asks for that. Registering uploads the package, and the workspace pays for its storage. No key is needed but the
signer's public one.
"""

import re
from pathlib import Path

from slmops_lab.deployment import gate, package
from slmops_lab.errors import CourseError
from slmops_lab.files import sha256_of
from slmops_lab.operations import cloud

PASSED, FAILED, NOT_ASKED = "passed", "failed", "not asked"
SIGNED = "slmops.signature_sha256"  # of the signature, which holds the hash of every file
VERDICT = "slmops.gate"
LEAVES_OUT = (".amlignore", ".gitignore")  # Azure's client uploads nothing that they name


@cloud.quietly()
def asset(folder, public_key, budgets=None, profile=None):
    """The Azure model of a package folder, not sent yet.

    budgets: file of `gate.load`; with it the verdict for `profile` is noted, else that nobody asked. Costs reading
    every byte. Raises CourseError where the package does not verify, or Azure's client would leave a part of it out.
    """
    from azure.ai.ml.constants import AssetTypes
    from azure.ai.ml.entities import Model

    folder = Path(folder).resolve()
    told = package.verify(folder, public_key)
    if hiding := [name for name in LEAVES_OUT if (folder / name).exists()]:
        raise CourseError(
            f"{folder.name} has a {hiding[0]}, and Azure's client leaves out what it names: pack it without."
        )
    verdict, reasons = _verdict(told, budgets, profile)
    weights = {name: digest for name, digest in package.signed_files(folder).items() if ".onnx" in Path(name).suffixes}
    properties = {"slmops.version": told["version"], SIGNED: sha256_of(folder / package.SIGNATURE), VERDICT: verdict}
    properties |= {"slmops.signer_sha256": sha256_of(Path(public_key)), "slmops.gate_profile": profile or "none"}
    properties |= {"slmops.gate_reasons": "; ".join(reasons) or "none"}
    properties |= {f"slmops.metric.{name}": str(value) for name, value in told["metrics"].items()}
    properties |= {f"slmops.sha256.{name}": digest for name, digest in sorted(weights.items())}
    properties |= {f"slmops.lineage.{name}": str(value) for name, value in told.get("lineage", {}).items()}
    return Model(
        name=asset_name(told["name"]),
        version=told["version"].replace("+", "_"),  # which an Azure version does not know, as an image's tag
        path=str(folder),
        type=AssetTypes.CUSTOM_MODEL,
        description=told.get("about") or f"{told['name']} {told['version']}",
        tags={"gate": verdict, "profile": profile or "none", "license": told.get("license", "unknown")},
        properties=properties,
    )


def asset_name(name):
    """A package's name as Azure takes it for an asset. Raises CourseError where nothing of it is left."""
    made = re.sub(r"[^A-Za-z0-9_.-]+", "-", name).strip("-_.")[:255]
    if not made:
        raise CourseError(f"Azure cannot name a model {name!r}: give a name with a letter or a digit.")
    return made


def _verdict(told, budgets, profile):
    """(verdict, what failed) of the gate."""
    if (budgets is None) != (profile is None):
        raise CourseError("The gate needs both: a file of budgets, and the profile that is meant.")
    if budgets is None:
        return NOT_ASKED, []
    rows = gate.check(told["metrics"], gate.load(budgets), profile)
    failed = [f"{name} is {row['measured']:.4g} ({row['budget']})" for name, row in rows[~rows["passed"]].iterrows()]
    return (FAILED if failed else PASSED), failed


@cloud.quietly()
def register(model, client=None):
    """Upload and register an `asset`; returns its id there, or None where no workspace is configured.

    What is registered already with the same content stays as it is, and its id is returned. Raises CourseError where
    the version is taken by other content, and with the service's reason where it refuses.
    """
    client = client or cloud.workspace()
    if client is None:
        return None
    if there := find(client, model.name, model.version):
        if there.properties.get(SIGNED) != model.properties[SIGNED]:
            raise CourseError(f"Azure has another {model.name} {model.version} already: pack it with a new version.")
        noted, verdict = there.properties.get(VERDICT), model.properties[VERDICT]
        if verdict not in (NOT_ASKED, noted):
            raise CourseError(
                f"Azure has this {model.name} {model.version} already, and notes there stay: the gate is '{noted}' and "
                f"not '{verdict}', so pack it with a new version."
            )
        return there.id
    with cloud.asking(f"register {model.name} {model.version}"):
        return client.models.create_or_update(model).id


def find(client, name, version):
    """The model as the workspace has it, None where it has none."""
    from azure.core.exceptions import ResourceNotFoundError

    with cloud.asking(f"look for {name} {version}"):
        try:
            return client.models.get(name, version)
        except ResourceNotFoundError:
            return None
