"""A model as a package: what it is, what is in it, where it comes from, signed so that a device can tell.

Signatures are OpenSSF's, by model-signing (https://github.com/sigstore/model-transparency), with a key of
one's own; the bill of materials is CycloneDX (https://cyclonedx.org). A signature says who made the files, not
that they are any good: that is the gate's to judge. Packing copies the model and reads every byte twice.
"""

import base64
import datetime
import importlib.metadata
import json
import os
import re
import shutil
from contextlib import suppress
from pathlib import Path, PurePosixPath

from packaging.version import InvalidVersion, Version

from slmops_lab.errors import CourseError
from slmops_lab.files import atomic_folder, sha256_of, write_json

SIGNATURE = "model.sig"
NEEDED = ("package.json", "MODEL_CARD.md", "sbom.cdx.json", "genai_config.json")
CURVES = ("secp256r1", "secp384r1", "secp521r1")  # those that model-signing takes
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
    (data hash, parent, settings). Sub-folders are packed, too, empty ones are not. Raises CourseError on a version
    that is none, a folder that is no such model and a key that cannot sign.
    """
    from model_signing import signing

    _version(version)
    model, out, key = Path(model).resolve(), Path(out), _key(private_key, "private", "sign")
    if not (model / "genai_config.json").is_file():
        raise CourseError(f"{model.name} is no ONNX Runtime GenAI model: it has no genai_config.json.")
    with atomic_folder(out.resolve()) as folder:
        made_anew = {SIGNATURE, "manifest.json", "step.json"}  # of an earlier package, of the course, of a step
        ignored = lambda place, _: made_anew if Path(place) == model else ()  # noqa: E731
        shutil.copytree(model, folder, dirs_exist_ok=True, ignore=ignored)
        made = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        told = {"name": name, "version": version, "license": license, "made": made, "about": about}
        told |= {"metrics": metrics, "lineage": lineage}
        write_json(folder / "package.json", told)
        (folder / "MODEL_CARD.md").write_text(_card(told), encoding="utf-8")
        (folder / "sbom.cdx.json").write_text(_bill(folder, told), encoding="utf-8")
        signer = signing.Config().use_elliptic_key_signer(private_key=key)
        signer.set_hashing_config(_all_but_the_signature()).sign(folder, folder / SIGNATURE)
        for place in [*sorted(folder.rglob("*"), reverse=True), folder]:  # what a folder holds comes before it
            if place.is_dir() and not any(place.iterdir()):
                place.rmdir()  # a signature knows files only
            else:
                place.chmod(0o755 if place.is_dir() else 0o644)  # devices read it, whoever they run as
    return out


def verify(folder, public_key, newer_than=None, name=None):
    """Check signature, files and version of a package; returns its package.json as a dict.

    newer_than: the version that is installed; an equal or older one is refused, so that nobody can bring
    an old weakness back. name: what the package has to be; another product's version says nothing about
    this one's. Costs reading every byte. Raises CourseError with the reason.
    """
    from model_signing import verifying

    folder, key = Path(folder).resolve(), _key(public_key, "public", "verify")
    signed = signed_files(folder)
    try:
        verifier = verifying.Config().use_elliptic_key_verifier(public_key=key)
        verifier.set_hashing_config(_all_but_the_signature()).verify(folder, folder / SIGNATURE)
    except Exception as error:  # cryptography, JSON and the signing library all raise their own kinds
        raise CourseError(f"{folder.name} is refused: {_reason(error, folder)}.") from error
    full = {parent.as_posix() for file in signed for parent in PurePosixPath(file).parents}
    for place in sorted(folder.rglob("*")):
        if place.is_dir() and (inner := place.relative_to(folder).as_posix()) not in full:
            raise CourseError(f"{folder.name} is refused: a folder that nobody signed: {inner}.")
    if missing := [name for name in NEEDED if not (folder / name).is_file()]:
        raise CourseError(f"{folder.name} is refused: it is signed, but no package ({missing[0]} is missing).")
    told = json.loads((folder / "package.json").read_text(encoding="utf-8"))
    if missing := [fact for fact in ("name", "version", "metrics") if fact not in told]:
        raise CourseError(f"{folder.name} is refused: it is signed, but its package.json has no {missing[0]}.")
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
    """{file: SHA-256} as the signature lists them (read, not verified). Raises CourseError where it cannot be read."""
    folder = Path(folder)
    try:
        bundle = json.loads((folder / SIGNATURE).read_text(encoding="utf-8"))
        statement = json.loads(base64.b64decode(bundle["dsseEnvelope"]["payload"]))
        return {entry["name"]: entry["digest"] for entry in statement["predicate"]["resources"]}
    except FileNotFoundError:
        raise CourseError(f"{folder} is not signed: {SIGNATURE} is missing.") from None
    except (ValueError, LookupError, TypeError) as error:
        raise CourseError(f"{folder.name} is refused: {SIGNATURE} is cut off, or is no signature.") from error


def _key(path, kind, use):
    """The path, where it is that of a 'private' or 'public' key to 'sign' or 'verify' with; else CourseError."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import serialization

    if not Path(path).is_file():
        raise CourseError(f"There is no key {path} to {use} with.")
    text, key = Path(path).read_bytes(), None
    with suppress(ValueError, TypeError, UnsupportedAlgorithm):  # TypeError: it has a password
        private = kind == "private"
        key = serialization.load_pem_private_key(text, None) if private else serialization.load_pem_public_key(text)
    if getattr(getattr(key, "curve", None), "name", None) in CURVES:
        return Path(path)
    reason = "is empty" if not text.strip() else f"is no {kind} key (ECDSA, PEM, without a password)"
    if kind == "public" and b"PRIVATE KEY" in text:
        reason = "is a private key: do not share it, give the public one"
    elif kind == "private" and b"PUBLIC KEY" in text:
        reason = "is a public key, give the private one"
    raise CourseError(f"{path} cannot {use}: it {reason}.")


def _version(text):
    try:
        return Version(text)
    except InvalidVersion:
        raise CourseError(f"'{text}' is no version: write it like 1.2.0.") from None


def _reason(error, folder):
    """What model-signing found, in a few words."""
    text = str(error)
    for pattern, said in (
        (r"Extra files found in model '.*?': ([^'\]]+)", "a file that nobody signed: {}"),
        (r"Missing files in model '.*?': ([^'\]]+)", "a file is missing: {}"),
        (r"Hash mismatch for \\?'(.*?)\\?'", "{} was changed after it was signed"),
        (r"Cannot use '(.*?)' because it is a symlink", "{} is a link and not a file"),
    ):
        if found := re.search(pattern, text):
            return said.format(found[1].strip("\" '").removeprefix(f"{folder}/"))
    return "the signature was not made with this key, or was changed"


def _card(told):
    shown = {name: f"{value:.4g}" if isinstance(value, float) else value for name, value in told["metrics"].items()}
    rows = "\n".join(f"| {name} | {value} |" for name, value in shown.items())
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

    def part(kind, name, ref, **more):
        return Component(type=kind, name=name, bom_ref=ref, **more)

    license = LicenseExpression(told["license"])
    model = part(
        ComponentType.MACHINE_LEARNING_MODEL, told["name"], "model", version=told["version"], licenses=[license]
    )
    parts = []
    for file in sorted(file for file in folder.rglob("*") if file.is_file()):
        name, digest = file.relative_to(folder).as_posix(), HashType(alg=HashAlgorithm.SHA_256, content=sha256_of(file))
        parts.append(part(ComponentType.FILE, name, f"file:{name}", hashes=[digest]))
    for library in RUNTIME:
        version = importlib.metadata.version(library)
        url = PackageURL("pypi", None, library, version)
        parts.append(part(ComponentType.LIBRARY, library, f"pypi:{library}", version=version, purl=url))
    bill = Bom()
    bill.metadata.component = model
    bill.components.update(parts)
    bill.register_dependency(model, parts)
    return JsonV1Dot6(bill).output_as_string(indent=1)
