"""What this machine can run, and what is missing: the rows of `slmops doctor`.

It only looks: it changes nothing and asks no network. It costs a few seconds, for torch's import and pip's start.
"""

import importlib.metadata
import os
import platform
import re
import shutil
import subprocess
import sys
from collections import namedtuple
from pathlib import Path
from urllib.parse import urlsplit

import psutil

from slmops_lab import devices, settings
from slmops_lab.errors import CourseError

Finding = namedtuple("Finding", "good what found advice")

PYTHONS = (
    (3, 11),
    (3, 14),
)  # the first and last one that the pinned torch, onnxruntime and onnxruntime-genai have wheels for
MEMORY_GB, DISK_GB = 8, 5
PACKAGES = ["torch", "transformers", "peft", "onnxruntime-genai", "foundry-local-sdk", "jupyterlab"]
NETWORK = re.compile(
    r"(https?|all|no)_proxy|pip_\w*(index|proxy|cert|host|links|config)\w*|ssl_cert_(file|dir)|(requests|curl)_ca_bundle",
    re.IGNORECASE,
)


def findings():
    """Yield `Finding`s: (good, what, found, advice), each a text but the first; no credentials are in them."""
    for rows in (_machine, _places, _line_ends, _network, _installed):
        for good, what, found, advice in rows():
            yield Finding(bool(good), what, found, "" if good else advice)


def _machine():
    first, last = (".".join(map(str, version)) for version in PYTHONS)
    fits = PYTHONS[0] <= sys.version_info[:2] <= PYTHONS[1]
    yield fits, "Python", f"{platform.python_version()} (supported: {first} to {last})", f"install Python {last}"
    quota, threads = settings.cpu_quota(), settings.threads()
    limit = "no quota" if quota == float("inf") else f"a quota of {quota:g}"
    found = f"{threads} used: {settings.cores()} by affinity, {limit}"
    yield threads >= 2, "processor cores", found, "expect it to take twice the time"
    allowed, total = settings.memory_limit() / 1e9, psutil.virtual_memory().total / 1e9
    found = f"{allowed:.1f} GB allowed here, {total:.1f} GB in the machine"
    yield allowed >= MEMORY_GB, "memory", found, f"{MEMORY_GB} GB are needed: allow more, or take another machine"


def _places():
    artifacts = Path(os.environ.get("SLMOPS_ARTIFACTS") or settings.ROOT / "artifacts")
    for what, place, variable in (("models", settings.home(), "HOME"), ("artifacts", artifacts, "ARTIFACTS")):
        existing = next(path for path in (place, *place.parents) if path.exists())
        free, writable = shutil.disk_usage(existing).free / 1e9, os.access(existing, os.W_OK)
        found = f"{free:.0f} GB at {place}" + ("" if writable else ", which cannot be written")
        advice = f"set SLMOPS_{variable} to a folder that can be written and has {DISK_GB} GB"
        yield free >= DISK_GB and writable, f"free disk for {what}", found, advice
    odd = sorted(set(re.sub(r"[\w\-./\\:+]", "", str(settings.ROOT), flags=re.ASCII)))
    found = str(settings.ROOT) + (f" (with {' '.join(map(repr, odd))})" if odd else "")
    fits = not set(str(settings.ROOT)) & {os.pathsep, *'"$`\n'}
    yield fits, "folder of the course", found, "move it to one without quotes, $, ` and the separator of PATH"


def _line_ends():
    sample = settings.ROOT / "data" / "support_desk" / "train.jsonl"
    windows = sample.is_file() and b"\r\n" in sample.read_bytes()
    try:
        command = ["git", "-C", str(settings.ROOT), "config", "core.autocrlf"]
        asked = subprocess.run(command, capture_output=True, text=True).stdout.strip() or "not set"
    except OSError:
        asked = "not to be asked: there is no git"
    advice = "clone again: .gitattributes keeps LF, which hashes and signatures count on"
    yield not windows, "line ends", f"{'CRLF' if windows else 'LF'}; git's core.autocrlf is {asked}", advice


def _network():
    seen = {name: value for name, value in sorted(os.environ.items()) if NETWORK.fullmatch(name) and value}
    told = subprocess.run([sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True).stdout
    for line in told.splitlines():  # those of files, such as global.proxy='...'
        name, _, value = line.partition("=")
        if not name.startswith(":env:") and NETWORK.fullmatch("pip_" + name.rpartition(".")[2].replace("-", "_")):
            seen[f"pip's {name}"] = value.strip("'\"")
    for name, value in seen.items():
        kind = name.lower()
        if re.search("cert|ca_bundle|config", kind):
            yield os.path.exists(value), name, redacted(value), "there is no such file: correct it, or unset it"
        elif "proxy" in kind and not kind.startswith("no_"):
            host = urlsplit(value if "//" in value else f"//{value}").hostname
            yield host, name, redacted(value), "no address of a proxy: write http://HOST:PORT"
        else:
            yield True, name, redacted(value), ""
    if not any("proxy" in name.lower() and not name.lower().startswith("no_") for name in seen):
        yield True, "proxy", "none", ""


def redacted(text):
    """An address without the names, passwords and tokens in it."""
    return re.sub(r"\?\S*", "?***", re.sub(r"([a-z][a-z0-9+.-]*://)?[^\s,]*@", r"\1***@", text, flags=re.IGNORECASE))


def _installed():
    for name in PACKAGES:
        try:
            found, good = importlib.metadata.version(name), True
        except importlib.metadata.PackageNotFoundError:
            found, good = "missing", False
        yield good, name, found, "pip install -r requirements.lock"
    fetched = (settings.home() / "smollm2-135m" / "config.json").is_file()
    yield fetched, "base model", "fetched" if fetched else "not yet", "slmops fetch"
    yield True, "telemetry", "switched off", ""
    try:
        found = "fast here" if settings.fast_bf16() else "slow here: training uses fp32 and takes about twice as long"
    except ImportError:  # said in a row of its own
        found = "unknown"
    yield True, "bf16 arithmetic", found, ""
    yield from _device()


def _device():
    try:
        here, chosen = devices.present(), devices.chosen()
        found = f"{chosen} is used" + (f", {here[0]} is here" if here[0] != chosen else "")
        yield True, "graphics processor", found + (f" ({devices.VARIABLE}=auto)" if chosen != here[0] else ""), ""
    except CourseError as error:
        yield False, "graphics processor", str(error), f"unset {devices.VARIABLE}"
    except ImportError:  # without torch nothing is trained
        pass
