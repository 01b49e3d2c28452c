import json
import os
import shutil
import stat

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from slmops_lab.deployment import package
from slmops_lab.errors import CourseError
from slmops_lab.files import sha256_of


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    return package.make_keys(tmp_path_factory.mktemp("keys"))


@pytest.fixture
def packed(tmp_path, keys):
    """A signed package of a model that is none."""
    model = tmp_path / "model"
    model.mkdir()
    for name in ("genai_config.json", "model.onnx", "model.onnx.data", "tokenizer.json"):
        (model / name).write_text(f"content of {name}")
    metrics, lineage = {"exact_match": 0.7, "megabytes": 27.0}, {"data": "abc123", "parent": "teacher"}
    out = tmp_path / "desk-1.2.0"
    return package.pack(model, out, "desk", "1.2.0", "Apache-2.0", metrics, lineage, keys[0], about="Sorts messages.")


def test_what_is_packed_can_be_verified_and_read(packed, keys):
    told = package.verify(packed, keys[1], newer_than="1.1.9")
    assert (told["name"], told["version"], told["license"]) == ("desk", "1.2.0", "Apache-2.0")
    assert told["lineage"] == {"data": "abc123", "parent": "teacher"}
    card = (packed / "MODEL_CARD.md").read_text()
    assert "# desk 1.2.0" in card and "| exact_match | 0.7 |" in card and "- data: abc123" in card
    listed = package.signed_files(packed)
    assert set(listed) == {f.name for f in packed.iterdir()} - {package.SIGNATURE}
    assert listed["model.onnx"] == sha256_of(packed / "model.onnx")


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


@pytest.mark.parametrize(
    ("harm", "reason"),
    [
        (flip, "model.onnx.data was changed after it was signed"),
        (newer, "package.json was changed after it was signed"),
        (lambda folder: (folder / "tokenizer.json").unlink(), "a file is missing: tokenizer.json"),
        (lambda folder: (folder / "run.py").write_text("x"), "a file that nobody signed: run.py"),
        (in_git_folder, "a file that nobody signed: .git/hook.py"),
        (link, "is a link and not a file"),
        (cut, "the signature was not made with this key, or was changed"),
        (lambda folder: (folder / package.SIGNATURE).unlink(), "is not signed: model.sig is missing"),
    ],
)
def test_what_was_harmed_is_refused_with_the_reason(packed, keys, harm, reason):
    harm(packed)
    with pytest.raises(CourseError) as refused:
        package.verify(packed, keys[1])
    assert reason in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_wrong_key_and_no_key(packed, keys, tmp_path):
    other = package.make_keys(tmp_path / "other")[1]
    with pytest.raises(CourseError, match="the signature was not made with this key"):
        package.verify(packed, other)
    with pytest.raises(CourseError, match="There is no key"):
        package.verify(packed, tmp_path / "none.pem")
    assert package.verify(packed, keys[1])["name"] == "desk"


@pytest.mark.parametrize("installed", ["1.2.0", "1.2.1", "1.10.0", "2.0.0"])
def test_nobody_goes_back_to_an_older_version(packed, keys, installed):
    with pytest.raises(CourseError, match=f"version 1.2.0 is not newer than {installed}"):
        package.verify(packed, keys[1], newer_than=installed)


def test_another_product_of_the_same_signer_is_refused(packed, keys):
    assert package.verify(packed, keys[1], name="desk")
    with pytest.raises(CourseError, match="it is 'desk' and not 'phone'"):
        package.verify(packed, keys[1], newer_than="0.1", name="phone")


def test_every_file_can_be_read_by_whoever_runs_it(packed):
    assert {stat.S_IMODE(file.stat().st_mode) & 0o444 for file in packed.iterdir()} == {0o444}


def test_a_signed_folder_that_is_no_package(packed, keys, tmp_path):
    from model_signing import signing

    folder = tmp_path / "other"
    folder.mkdir()
    (folder / "package.json").write_text("{}")
    signer = signing.Config().use_elliptic_key_signer(private_key=keys[0])
    signer.set_hashing_config(package._all_but_the_signature()).sign(folder, folder / package.SIGNATURE)
    with pytest.raises(CourseError, match="it is signed, but no package"):
        package.verify(folder, keys[1])


def test_wrong_versions_and_keys_leave_nothing_behind(packed, keys, tmp_path):
    model = tmp_path / "model"
    rest = ("Apache-2.0", {}, {})
    with pytest.raises(CourseError, match="'newest' is no version"):
        package.pack(model, tmp_path / "x", "desk", "newest", *rest, keys[0])
    with pytest.raises(CourseError, match="cannot sign"):
        package.pack(model, tmp_path / "x", "desk", "1.0.0", *rest, keys[1])
    with pytest.raises(CourseError, match="cannot sign"):
        package.pack(model, tmp_path / "x", "desk", "1.0.0", *rest, tmp_path / "none.pem")
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
