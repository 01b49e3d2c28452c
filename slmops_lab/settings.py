"""Where things are, how big a run is, what this machine allows, and what other libraries may not do.

Importing this module changes the process, and what it starts; it comes before torch, transformers, onnxruntime and
the rest, most of which read these once, at import. It sets the environment variables in `QUIET`; adds this machine to
NO_PROXY and no_proxy; makes SLMOPS_HOME, SLMOPS_ARTIFACTS and SLMOPS_BUILD absolute, since notebooks run in their own
folder; quiets one logger and one warning. Three other modules change something for the whole process: `course.plots`
(matplotlib's rcParams, pandas' display.max_colwidth) at import, `course.chapters.execute` (IPYTHONDIR) and `.Sections`
(where tqdm writes), and `measure.reuse_freed_memory` (glibc's mallopt, called by the trainer) when called.
It imports neither torch nor NumPy before a run starts.
"""

import functools
import logging
import math
import os
import random
import sys
import time
import warnings
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from slmops_lab.errors import CourseError
from slmops_lab.files import sha256_of

# Each library has its own switch and several ignore their documented one.
QUIET = {
    "CI": "1",  # the only one that all Microsoft libraries here respect
    "DO_NOT_TRACK": "1",
    "ORT_DISABLE_TELEMETRY": "1",  # onnxruntime, onnxruntime-genai
    "ORT_TELEMETRY_DISABLED": "1",  # the name that foundry-local-sdk reads
    "OLIVE_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "RAY_USAGE_STATS_ENABLED": "0",  # read by whoever starts a cluster
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_HUB_OFFLINE": "1",  # datasets and transformers ask no hub, unless SLMOPS_HUB=1
    "TRANSFORMERS_VERBOSITY": "error",
    "TOKENIZERS_PARALLELISM": "false",
    # Idle OpenMP threads that spin steal the core from whoever works: 10 to 20 times slower here.
    "OMP_WAIT_POLICY": "PASSIVE",
    "GOMP_SPINCOUNT": "20000",  # a short spin keeps most of the speed that PASSIVE costs
    # Kernels made for batches of other lengths: keeping 1,024 of them fills hundreds of MB and saves no time.
    "ONEDNN_PRIMITIVE_CACHE_CAPACITY": "128",
}


LOOPBACK = ("127.0.0.1", "localhost", "::1")  # where the course's own endpoints listen
PLACES = ("SLMOPS_HOME", "SLMOPS_ARTIFACTS", "SLMOPS_BUILD")
CGROUPS, OWN_CGROUPS = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")


def quiet():
    """Set the environment as the module's docstring says, in this process and so in every process it starts."""
    os.environ.update(QUIET)
    if os.environ.get("SLMOPS_HUB") == "1":
        os.environ["HF_HUB_OFFLINE"] = "0"
    for name in PLACES:
        if os.environ.get(name):
            os.environ[name] = str(Path(os.environ[name]).expanduser().absolute())
    # elsewhere Python asks the system for its proxies, but only where no such variable is set
    if sys.platform.startswith("linux") or any(name.lower().endswith("_proxy") for name in os.environ):
        known = [host.strip() for name in ("no_proxy", "NO_PROXY") for host in os.environ.get(name, "").split(",")]
        hosts = ",".join(dict.fromkeys(host for host in [*known, *LOOPBACK] if host))
        os.environ.update(no_proxy=hosts, NO_PROXY=hosts)


quiet()
# bitsandbytes would like a package that fetches code from a hub; what is built in does the work
logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
# PEFT asks transformers by the old name; nothing that a reader of a notebook can do about it
warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing. is deprecated", category=FutureWarning)

PROFILES = {
    "full": "what learners and `make course` run",
    "quick": "for tests: less data, fewer steps, the same statements",
}
ROOT = Path(__file__).resolve().parents[1]


@functools.cache
def code_version():
    """Hash of this library's code, without the course around it: another version may make something else."""
    rooms = ROOT / "slmops_lab"
    return sha256_of(*(f for f in rooms.rglob("*.py") if "course" not in f.relative_to(rooms).parts))[:16]


def home():
    """Folder for downloaded models: SLMOPS_HOME, else `slmops` in the user's cache folder."""
    if os.environ.get("SLMOPS_HOME"):
        return Path(os.environ["SLMOPS_HOME"]).expanduser().resolve()
    if os.name == "nt":
        base = os.environ.get("LOCALAPPDATA") or Path.home() / "AppData/Local"
    else:
        base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "slmops"


def threads():
    """Threads that can work at once: processor cores, or less where a container or OMP_NUM_THREADS allows less.

    A quota of 2.5 cores is 2 threads: a third would wait for half of its time, and the others for it.
    """
    asked = [os.environ.get(name, "") for name in ("OMP_NUM_THREADS", "PYTHON_CPU_COUNT")]
    wanted = [int(number) for number in asked if number.isdigit() and int(number)]
    return max(1, int(min(cores(), cpu_quota(), *wanted)))


def cores():
    """Processor cores that the scheduler may put this process on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cpu_quota():
    """Cores' worth of processor time that Linux's control groups allow (docker run --cpus), inf without a limit.

    As in https://docs.kernel.org/admin-guide/cgroup-v2.html and .../cgroup-v1/cgroups.html; the smallest limit of
    this process's group and of those around it counts.
    """
    quotas = [math.inf]
    for group in _control_groups("cpu"):
        one, two = _numbers(group / "cpu.max"), _numbers(group / "cpu.cfs_quota_us")
        for limit in (one, two + _numbers(group / "cpu.cfs_period_us")):
            if len(limit) == 2 and all(limit):
                quotas.append(limit[0] / limit[1])
    return min(quotas)


def memory_limit():
    """Bytes of memory that this process may use: the machine's, or less where a control group allows less."""
    files = ("memory.max", "memory.limit_in_bytes")
    limits = [number for group in _control_groups("memory") for file in files for number in _numbers(group / file)]
    return min([psutil.virtual_memory().total, *limits])


def _control_groups(controller):
    """Folders of this process's control group and of those around it, of both versions; none off Linux.

    In a container the groups' names may be the host's; the last folder, the container's own, is there in any case.
    """
    for line in OWN_CGROUPS.read_text().splitlines() if OWN_CGROUPS.is_file() else []:
        _, controllers, name = line.split(":", 2)
        if not controllers or controller in controllers.split(","):
            top, inner = CGROUPS / (controller if controllers else ""), Path(name.strip("/"))
            yield from (top / group for group in (inner, *inner.parents))


def _numbers(path):
    """The whole numbers in a control group's file: none for "max", for -1 and where there is no file."""
    return [int(word) for word in path.read_text().split() if word.isdigit()] if path.is_file() else []


def fast_bf16():
    """Whether this machine computes bfloat16 at least as fast as float32."""
    import torch

    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


def dataset_folder(dataset):
    """A name in `data/` or a path -> the folder. Raises CourseError when there is none."""
    known = ROOT / "data" / str(dataset)
    ours = Path(str(dataset)).name == str(dataset) and known.is_dir()
    folder = known if ours else Path(str(dataset)).expanduser().resolve()
    if (folder / "schema.json").is_file():
        return folder
    here = sorted(p.parent.name for p in (ROOT / "data").glob("*/schema.json"))
    raise CourseError(
        f"There is no data set '{dataset}': give one of {', '.join(here)}, "
        "or the path of a folder that holds a schema.json."
    )


@dataclass(frozen=True)
class Run:
    """The parameters of one notebook run, checked; `chapter` holds those that only its chapter has."""

    dataset: Path
    data_sha256: str
    base_model: str
    profile: str
    seed: int
    chapter: dict = field(default_factory=dict, hash=False)
    started: float = field(default_factory=time.monotonic, compare=False, repr=False)

    @property
    def minutes(self):
        """Minutes since the run started."""
        return (time.monotonic() - self.started) / 60

    def pick(self, full, quick):
        """The value for this run's profile."""
        return full if self.profile == "full" else quick

    @property
    def artifacts(self):
        """Folder of what this run's chapters make."""
        base = Path(os.environ.get("SLMOPS_ARTIFACTS") or ROOT / "artifacts")
        return base / self.profile / self.dataset.name

    @property
    def build(self):
        """Folder of the reports (claims, timings) of this run's profile."""
        return build_folder(self.profile)

    @property
    def parameters(self):
        """What another chapter's notebook needs to make the same run."""
        known = {key: value for key, value in self.identity.items() if key != "data_sha256"}
        return {"dataset": str(self.dataset), **known}

    @property
    def identity(self):
        """What an artifact must agree on to be usable in this run."""
        return {key: getattr(self, key) for key in ("data_sha256", "base_model", "profile", "seed")}


def build_folder(profile="full"):
    """Reports of `full` go to build/, those of another profile below it."""
    base = Path(os.environ.get("SLMOPS_BUILD") or ROOT / "build")
    return base if profile == "full" else base / profile


def start(dataset, base_model, profile=None, seed=0, **chapter):
    """Check a notebook's parameters, seed every generator, and return the `Run`.

    profile None means SLMOPS_PROFILE, and `full` where that is not set. chapter: the other parameters that decide
    what the chapter's artifacts are (plain values). The data count with their names and bytes, replies/ included.
    Raises CourseError on an unknown data set or profile and on a seed that is no whole number.
    """
    profile = profile or os.environ.get("SLMOPS_PROFILE") or "full"
    if profile not in PROFILES:
        raise CourseError(f"There is no profile '{profile}': give one of {', '.join(PROFILES)}.")
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**32:  # NumPy takes no larger one
        raise CourseError(f"The seed must be a whole number from 0 up and below 2**32, not {seed!r}.")
    folder = dataset_folder(dataset)
    data = [folder / "schema.json", *folder.glob("*.jsonl"), *folder.glob("replies/*.jsonl")]
    run = Run(folder, sha256_of(*data)[:16], str(base_model), profile, seed, chapter)
    set_seed(seed)
    return run


def set_seed(seed):
    """Seed Python, NumPy and torch, and let torch use this process's cores."""
    import numpy
    import torch

    random.seed(seed)
    numpy.random.seed(seed)
    torch.manual_seed(seed)
    torch.set_num_threads(threads())
