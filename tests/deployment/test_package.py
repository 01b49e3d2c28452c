import base64
import json
import os
import shutil
import stat
from pathlib import Path

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from slmops_lab.deployment import package, runtime
from slmops_lab.errors import CourseError
from slmops_lab.files import sha256_of


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    return package.make_keys(tmp_path_factory.mktemp("keys"))


@pytest.fixture
def packed(tmp_path, keys):
    """A signed package of a model that is none."""
    model = tmp_path / "model"
    model.mkdir(mode=0o700)
    (model / "onnx").mkdir()
    for name in ("genai_config.json", "onnx/model.onnx", "model.onnx.data", "tokenizer.json"):
        (model / name).write_text(f"content of {name}")
    metrics, lineage = {"exact_match": 0.7000000000000001, "megabytes": 27.0}, {"data": "abc123", "parent": "teacher"}
    out = tmp_path / "desk-1.2.0"
    return package.pack(model, out, "desk", "1.2.0", "Apache-2.0", metrics, lineage, keys[0], about="Sorts messages.")


def test_what_is_packed_can_be_verified_and_read(packed, keys):
    told = package.verify(packed, keys[1], newer_than="1.1.9")
    assert (told["name"], told["version"], told["license"]) == ("desk", "1.2.0", "Apache-2.0")
    assert told["lineage"] == {"data": "abc123", "parent": "teacher"}
    card = (packed / "MODEL_CARD.md").read_text()
    assert "# desk 1.2.0" in card and "| exact_match | 0.7 |" in card and "- data: abc123" in card
    listed = package.signed_files(packed)
    files = {f.relative_to(packed).as_posix() for f in packed.rglob("*") if f.is_file()}
    assert set(listed) == files - {package.SIGNATURE}
    assert listed["onnx/model.onnx"] == sha256_of(packed / "onnx" / "model.onnx")


def test_the_bill_of_materials_follows_its_standard(packed):
    text = (packed / "sbom.cdx.json").read_text()
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    bill = json.loads(text)
    hashes = {c["name"]: c["hashes"][0]["content"] for c in bill["components"] if c["type"] == "file"}
    assert hashes["tokenizer.json"] == sha256_of(packed / "tokenizer.json")
    assert "pkg:pypi/onnxruntime-genai@" in text


def flip(folder):
    file = folder / "model.onnx.data"
    content = bytearray(file.read_bytes())
    content[3] ^= 1
    file.write_bytes(content)


def newer(folder):
    file = folder / "package.json"
    file.write_text(file.read_text().replace("1.2.0", "9.9.9"))


def in_git_folder(folder):
    (folder / ".git").mkdir()
    (folder / ".git" / "hook.py").write_text("import os")


def link(folder):
    (folder / "tokenizer.json").rename(folder.parent / "elsewhere")
    os.symlink(folder.parent / "elsewhere", folder / "tokenizer.json")


def cut(folder):
    file = folder / package.SIGNATURE
    file.write_text(file.read_text()[:300])


def misspelt(folder):
    file = folder / package.SIGNATURE
    file.write_text(file.read_text().replace("payloadType", "payloadKind"))


@pytest.mark.parametrize(
    ("harm", "reason"),
    [
        (flip, "model.onnx.data was changed after it was signed"),
        (newer, "package.json was changed after it was signed"),
        (lambda folder: (folder / "tokenizer.json").unlink(), "a file is missing: tokenizer.json"),
        (lambda folder: (folder / "run.py").write_text("x"), "a file that nobody signed: run.py"),
        (in_git_folder, "a file that nobody signed: .git/hook.py"),
        (link, "refused: tokenizer.json is a link and not a file."),
        (cut, "desk-1.2.0 is refused: model.sig is cut off, or is no signature."),
        (lambda folder: (folder / package.SIGNATURE).write_text("{}"), "model.sig is cut off, or is no signature."),
        (lambda folder: (folder / package.SIGNATURE).write_text("[1]"), "model.sig is cut off, or is no signature."),
        (lambda folder: (folder / package.SIGNATURE).write_text(""), "model.sig is cut off, or is no signature."),
        (misspelt, "the signature was not made with this key, or was changed."),
        (lambda folder: (folder / ".DS_Store").write_text("x"), "a file that nobody signed: .DS_Store."),
        (lambda folder: (folder / "onnx" / "deep").mkdir(), "a folder that nobody signed: onnx/deep."),
        (lambda folder: os.symlink(folder.parent, folder / "more"), "is a link and not a file"),
        (lambda folder: (folder / package.SIGNATURE).unlink(), "is not signed: model.sig is missing"),
    ],
)
def test_what_was_harmed_is_refused_with_the_reason(packed, keys, harm, reason):
    harm(packed)
    with pytest.raises(CourseError) as refused:
        package.verify(packed, keys[1])
    assert reason in str(refused.value)
    assert "\n" not in str(refused.value) and str(packed) not in str(refused.value).removeprefix(str(packed))


def test_a_wrong_key_and_another_ones(packed, keys, tmp_path):
    other = package.make_keys(tmp_path / "other")[1]
    with pytest.raises(CourseError, match="the signature was not made with this key"):
        package.verify(packed, other)
    assert package.verify(packed, keys[1])["name"] == "desk"


def rsa(path):
    """(private, public) files of keys of another kind, the private one with a password."""
    from cryptography.hazmat.primitives import serialization as write
    from cryptography.hazmat.primitives.asymmetric import rsa

    key, locked = rsa.generate_private_key(65537, 2048), write.BestAvailableEncryption(b"secret")
    private = key.private_bytes(write.Encoding.PEM, write.PrivateFormat.PKCS8, locked)
    public = key.public_key().public_bytes(write.Encoding.PEM, write.PublicFormat.SubjectPublicKeyInfo)
    for name, text in (("private", private), ("public", public), ("empty", b""), ("noise", b"\0\xff")):
        (path / name).write_bytes(text)


def test_a_file_that_is_not_the_key_is_said_to_be_what_it_is(packed, keys, tmp_path):
    rsa(tmp_path)
    no_key = "it is no {} key (ECDSA, PEM, without a password)."
    verifying = {keys[0]: "it is a private key: do not share it, give the public one.", tmp_path: "There is no key"}
    verifying |= dict.fromkeys([tmp_path / "public", tmp_path / "noise"], no_key.format("public"))
    signing = {keys[1]: "it is a public key, give the private one.", tmp_path / "none": "There is no key"}
    signing |= dict.fromkeys([tmp_path / "private", tmp_path / "noise"], no_key.format("private"))
    for key, reason in (verifying | {tmp_path / "empty": "it is empty."}).items():
        with pytest.raises(CourseError) as refused:
            package.verify(packed, key)
        assert reason in str(refused.value) and "\n" not in str(refused.value)
    for key, reason in (signing | {tmp_path / "empty": "it is empty."}).items():
        with pytest.raises(CourseError) as refused:
            package.pack(tmp_path / "model", tmp_path / "x", "desk", "1.0.0", "Apache-2.0", {}, {}, key)
        assert reason in str(refused.value) and "\n" not in str(refused.value)
    assert not (tmp_path / "x").exists()


def test_a_real_model_in_sub_folders_is_packed_verified_and_opened_through_links(tiny_onnx, keys, tmp_path):
    model = tmp_path / "model"
    shutil.copytree(tiny_onnx, model)
    (model / "onnx" / "nothing").mkdir(parents=True)
    for file in model.glob("model.onnx*"):
        file.rename(model / "onnx" / file.name)
    config = json.loads((model / "genai_config.json").read_text())
    config["model"]["decoder"]["filename"] = "onnx/model.onnx"
    (model / "genai_config.json").write_text(json.dumps(config))
    for link, to in (("to_model", model), ("to_package", tmp_path / "packed")):
        to.mkdir(exist_ok=True)
        (tmp_path / link).symlink_to(to)
    package.pack(tmp_path / "to_model", tmp_path / "to_package", "desk", "1.0", "Apache-2.0", {}, {}, keys[0])
    assert (tmp_path / "to_package").is_symlink()
    assert package.verify(tmp_path / "to_package", keys[1])["version"] == "1.0"
    assert "onnx/model.onnx" in package.signed_files(tmp_path / "to_package")
    bill = json.loads((tmp_path / "packed" / "sbom.cdx.json").read_text())
    assert "onnx/model.onnx" in [part["name"] for part in bill["components"]]
    chat = [{"role": "user", "content": "hi"}]
    served = runtime.GenAIRuntime(tmp_path / "to_package")
    assert served.generate(chat, 4) == runtime.GenAIRuntime(tiny_onnx).generate(chat, 4)
    for file in (tmp_path / "packed").rglob("*"):
        content = file.read_bytes() if file.is_file() else b""
        content += base64.b64decode(json.loads(content)["dsseEnvelope"]["payload"]) if file.suffix == ".sig" else b""
        assert not any(str(place).encode() in content for place in (tmp_path, tiny_onnx, Path.home())), file


@pytest.mark.parametrize("installed", ["1.2.0", "1.2.1", "1.10.0", "2.0.0"])
def test_nobody_goes_back_to_an_older_version(packed, keys, installed):
    with pytest.raises(CourseError, match=f"version 1.2.0 is not newer than {installed}"):
        package.verify(packed, keys[1], newer_than=installed)


def test_another_product_of_the_same_signer_is_refused(packed, keys):
    assert package.verify(packed, keys[1], name="desk")
    with pytest.raises(CourseError, match="it is 'desk' and not 'phone'"):
        package.verify(packed, keys[1], newer_than="0.1", name="phone")


def test_every_file_can_be_read_by_whoever_runs_it(packed):
    places = [packed, *packed.rglob("*")]
    assert {(p.is_dir(), oct(stat.S_IMODE(p.stat().st_mode))) for p in places} == {(True, "0o755"), (False, "0o644")}


def test_a_signed_folder_that_is_no_package(packed, keys, tmp_path):
    from model_signing import signing

    folder = tmp_path / "other"
    folder.mkdir()
    (folder / "package.json").write_text("{}")
    signer = signing.Config().use_elliptic_key_signer(private_key=keys[0])
    signer.set_hashing_config(package._all_but_the_signature()).sign(folder, folder / package.SIGNATURE)
    with pytest.raises(CourseError, match=r"it is signed, but no package \(MODEL_CARD.md is missing\)"):
        package.verify(folder, keys[1])
    for name in package.NEEDED[1:]:
        (folder / name).write_text("x")
    signer.sign(folder, folder / package.SIGNATURE)
    with pytest.raises(CourseError, match="it is signed, but its package.json has no name"):
        package.verify(folder, keys[1])


def test_a_wrong_version_or_model_leaves_nothing_behind(packed, keys, tmp_path):
    model = tmp_path / "model"
    rest = ("Apache-2.0", {}, {})
    with pytest.raises(CourseError, match="'newest' is no version"):
        package.pack(model, tmp_path / "x", "desk", "newest", *rest, keys[0])
    with pytest.raises(CourseError, match="^nowhere is no ONNX Runtime GenAI model: it has no genai_config.json"):
        package.pack(tmp_path / "nowhere", tmp_path / "x", "desk", "1.0.0", *rest, keys[0])
    assert not (tmp_path / "x").exists()


def test_a_private_key_is_private_and_is_not_overwritten(tmp_path):
    private, _ = package.make_keys(tmp_path / "k")
    assert stat.S_IMODE(private.stat().st_mode) == 0o600
    before = private.read_bytes()
    with pytest.raises(CourseError, match="exists already"):
        package.make_keys(tmp_path / "k")
    assert private.read_bytes() == before


def test_a_copy_of_a_package_is_as_good(packed, keys, tmp_path):
    shutil.copytree(packed, tmp_path / "elsewhere" / "renamed")
    assert package.verify(tmp_path / "elsewhere" / "renamed", keys[1])["version"] == "1.2.0"
