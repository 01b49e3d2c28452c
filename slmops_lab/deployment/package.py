"""A model as a package: what it is, what is in it, where it comes from, signed so that a device can tell.

Signatures are OpenSSF's, by model-signing (https://github.com/sigstore/model-transparency), with a key of
one's own; the bill of materials is CycloneDX (https://cyclonedx.org).
"""

import datetime
import importlib.metadata
import json
import os
import re
import shutil
from pathlib import Path

from packaging.version import InvalidVersion, Version

from slmops_lab.errors import CourseError
from slmops_lab.files import atomic_folder, sha256_of, write_json

SIGNATURE = "model.sig"
NEEDED = ("package.json", "MODEL_CARD.md", "sbom.cdx.json", "genai_config.json")
RUNTIME = ("onnxruntime", "onnxruntime-genai", "numpy")  # what the model runs on


def make_keys(folder):
    """Make a key pair (ECDSA, curve P-256) for signing; returns (private, public) paths of PEM files.

    The private file is readable by its owner only. Raises CourseError where there is one already.
    """
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    private, public = folder / "private.pem", folder / "public.pem"
    key = ec.generate_private_key(ec.SECP256R1())
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    try:
        with open(os.open(private, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(secret)
    except FileExistsError:
        raise CourseError(f"{private} exists already: whoever trusts it would not know the new one.") from None
    public.write_bytes(
        key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    return private, public


def pack(model, out, name, version, license, metrics, lineage, private_key, about=""):
    """Make and sign the package folder `out` from an ONNX Runtime GenAI model folder; returns its path.

    license: SPDX expression. metrics: plain values, also shown in the card. lineage: what it was made from
    (data hash, parent, settings). Raises CourseError on a version that is none and a key that cannot sign.
    """
    from model_signing import signing

    _version(version)
    with atomic_folder(out) as folder:
        shutil.copytree(model, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns(SIGNATURE, "manifest.json"))
        made = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        told = {"name": name, "version": version, "license": license, "made": made, "about": about}
        told |= {"metrics": metrics, "lineage": lineage}
        write_json(folder / "package.json", told)
        os.chmod(folder / "package.json", 0o644)  # devices read it, whoever they run as
        (folder / "MODEL_CARD.md").write_text(_card(told), encoding="utf-8")
        (folder / "sbom.cdx.json").write_text(_bill(folder, told), encoding="utf-8")
        os.chmod(folder, 0o755)
        try:
            signer = signing.Config().use_elliptic_key_signer(private_key=Path(private_key))
            signer.set_hashing_config(_all_but_the_signature()).sign(folder, folder / SIGNATURE)
        except (OSError, ValueError) as error:
            raise CourseError(f"{private_key} cannot sign: {error}") from error
    return Path(out)


def verify(folder, public_key, newer_than=None, name=None):
    """Check signature, files and version of a package; returns its package.json as a dict.

    newer_than: the version that is installed; an equal or older one is refused, so that nobody can bring
    an old weakness back. name: what the package has to be; another product's version says nothing about
    this one's. Raises CourseError with the reason.
    """
    from model_signing import verifying

    folder = Path(folder)
    if not (folder / SIGNATURE).is_file():
        raise CourseError(f"{folder} is not signed: {SIGNATURE} is missing.")
    if not Path(public_key).is_file():
        raise CourseError(f"There is no key {public_key} to verify with.")
    try:
        verifier = verifying.Config().use_elliptic_key_verifier(public_key=Path(public_key))
        verifier.set_hashing_config(_all_but_the_signature()).verify(folder, folder / SIGNATURE)
    except Exception as error:  # cryptography, JSON and the signing library all raise their own kinds
        raise CourseError(f"{folder.name} is refused: {_reason(error)}.") from error
    if missing := [name for name in NEEDED if not (folder / name).is_file()]:
        raise CourseError(f"{folder.name} is refused: it is signed, but no package ({missing[0]} is missing).")
    told = json.loads((folder / "package.json").read_text(encoding="utf-8"))
    if name is not None and told["name"] != name:
        raise CourseError(f"{folder.name} is refused: it is '{told['name']}' and not '{name}'.")
    if newer_than is not None and _version(told["version"]) <= _version(newer_than):
        raise CourseError(f"{folder.name} is refused: version {told['version']} is not newer than {newer_than}.")
    return told


def _all_but_the_signature():
    from model_signing import hashing

    # by default what git keeps would be left out, too, and anybody could add files under its names
    return hashing.Config().set_ignored_paths(paths=[SIGNATURE], ignore_git_paths=False)


def signed_files(folder):
    """{file: SHA-256} as the signature lists them (read, not verified)."""
    import base64

    bundle = json.loads((Path(folder) / SIGNATURE).read_text(encoding="utf-8"))
    statement = json.loads(base64.b64decode(bundle["dsseEnvelope"]["payload"]))
    return {entry["name"]: entry["digest"] for entry in statement["predicate"]["resources"]}


def _version(text):
    try:
        return Version(text)
    except InvalidVersion:
        raise CourseError(f"'{text}' is no version: write it like 1.2.0.") from None


def _reason(error):
    """What model-signing found, in a few words."""
    text = str(error)
    for pattern, said in (
        (r"Extra files found in model '.*?': ([^'\]]+)", "a file that nobody signed: {}"),
        (r"Missing files in model '.*?': ([^'\]]+)", "a file is missing: {}"),
        (r"Hash mismatch for \\?'(.*?)\\?'", "{} was changed after it was signed"),
        (r"Cannot use '(.*?)' because it is a symlink", "{} is a link and not a file"),
    ):
        if found := re.search(pattern, text):
            return said.format(found[1].strip('" '))
    return "the signature was not made with this key, or was changed" + (f" ({text.strip(' .')})" if text else "")


def _card(told):
    rows = "\n".join(f"| {name} | {value} |" for name, value in told["metrics"].items())
    from_what = "\n".join(f"- {name}: {value}" for name, value in told["lineage"].items())
    return (
        f"# {told['name']} {told['version']}\n\n{told['about']}\n\n"
        f"License: {told['license']}. Made {told['made']}.\n\n"
        f"## Measured\n\n| | |\n|---|---|\n{rows}\n\n## Made from\n\n{from_what}\n"
    )


def _bill(folder, told):
    """Bill of materials: every file of the model with its hash, and the libraries it runs on."""
    from cyclonedx.model import HashAlgorithm, HashType
    from cyclonedx.model.bom import Bom
    from cyclonedx.model.component import Component, ComponentType
    from cyclonedx.model.license import LicenseExpression
    from cyclonedx.output.json import JsonV1Dot6
    from packageurl import PackageURL

    model = Component(
        name=told["name"],
        version=told["version"],
        type=ComponentType.MACHINE_LEARNING_MODEL,
        licenses=[LicenseExpression(told["license"])],
        bom_ref="model",
    )
    bill = Bom()
    bill.metadata.component = model
    parts = [
        Component(
            name=file.name,
            type=ComponentType.FILE,
            hashes=[HashType(alg=HashAlgorithm.SHA_256, content=sha256_of(file))],
            bom_ref=f"file:{file.name}",
        )
        for file in sorted(folder.iterdir())
    ]
    for library in RUNTIME:
        version = importlib.metadata.version(library)
        parts.append(
            Component(
                name=library,
                version=version,
                type=ComponentType.LIBRARY,
                purl=PackageURL("pypi", None, library, version),
                bom_ref=f"pypi:{library}",
            )
        )
    bill.components.update(parts)
    bill.register_dependency(model, parts)
    return JsonV1Dot6(bill).output_as_string(indent=1)
