"""Where things are, how big a run is, and what other libraries may not do.

Importing this module sets the environment variables in `QUIET`, so it comes before torch,
transformers, onnxruntime and the rest: most of them read these once, at import.
"""

import logging
import os
import random
import time
import warnings
from dataclasses import dataclass, field
from pathlib import Path

from slmops_lab.errors import CourseError
from slmops_lab.files import sha256_of

# Each library has its own switch and several ignore their documented one, CI=1 is the only one that
# all Microsoft libraries here respect.
QUIET = {
    "CI": "1",
    "DO_NOT_TRACK": "1",
    "ORT_DISABLE_TELEMETRY": "1",  # onnxruntime, onnxruntime-genai
    "ORT_TELEMETRY_DISABLED": "1",  # the name that foundry-local-sdk reads
    "OLIVE_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
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


def quiet():
    """Set `QUIET` in this process and, through the environment, in every process it starts."""
    wanted = dict(QUIET)
    if os.environ.get("SLMOPS_HUB") == "1":
        wanted["HF_HUB_OFFLINE"] = "0"
    os.environ.update(wanted)


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
    """Processor cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


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
    """The parameters of one notebook run, checked."""

    dataset: Path
    data_sha256: str
    base_model: str
    profile: str
    seed: int
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
        return {
            "dataset": str(self.dataset),
            "base_model": self.base_model,
            "profile": self.profile,
            "seed": self.seed,
        }

    @property
    def identity(self):
        """What an artifact must agree on to be usable in this run."""
        return {
            "data_sha256": self.data_sha256,
            "base_model": self.base_model,
            "profile": self.profile,
            "seed": self.seed,
        }


def build_folder(profile="full"):
    """Reports of `full` go to build/, those of another profile below it."""
    base = Path(os.environ.get("SLMOPS_BUILD") or ROOT / "build")
    return base if profile == "full" else base / profile


def start(dataset, base_model, profile=None, seed=0):
    """Check a notebook's parameters, seed every generator, and return the `Run`.

    profile None means SLMOPS_PROFILE, and `full` where that is not set.
    Raises CourseError on an unknown data set or profile and on a seed that is no whole number.
    """
    profile = profile or os.environ.get("SLMOPS_PROFILE") or "full"
    if profile not in PROFILES:
        raise CourseError(f"There is no profile '{profile}': give one of {', '.join(PROFILES)}.")
    if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
        raise CourseError(f"The seed must be a whole number from 0 up, not {seed!r}.")
    folder = dataset_folder(dataset)
    files = [folder / "schema.json", *sorted(folder.glob("*.jsonl"))]
    run = Run(folder, sha256_of(*files)[:16], str(base_model), profile, seed)
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
