"""Where models learn and read: this processor, or a graphics processor where SLMOPS_DEVICE asks for one.

`cpu` is the default: what the chapters print about time and memory is about a laptop, and a deployed model runs on its
processor in any case. `auto` takes CUDA, else Apple's MPS, else the processor; `cuda` and `mps` insist. A model is
moved there for one training or one reading and comes back, so everything else finds it where it was. One device is
used, also where there are several. Memory is measured for the process, not for a graphics processor. Models in four
bits (bitsandbytes) stay where they were loaded. Tested with a device that is none (tests/elsewhere.py); nobody has
measured what a real one gains.
"""

import os
from contextlib import contextmanager, nullcontext

from slmops_lab import settings
from slmops_lab.errors import CourseError

VARIABLE = "SLMOPS_DEVICE"
WIDER = 4  # batches for reading on a graphics processor, which is idle with what keeps two cores busy


def chosen():
    """'cpu', 'cuda' or 'mps'. Raises CourseError on another name, and where a named device is not here."""
    name = os.environ.get(VARIABLE) or "cpu"
    if name == "cpu":
        return name
    here = present()
    if name == "auto":
        return here[0]
    if name not in ("cuda", "mps"):
        raise CourseError(f"{VARIABLE} is '{name}': give auto, cpu, cuda or mps.")
    if name not in here:
        raise CourseError(
            f"{VARIABLE} is {name}, and PyTorch finds none here: install a driver and a PyTorch for it, or set auto."
        )
    return name


def present():
    """Devices that PyTorch can use here, the fastest first; the last is 'cpu'."""
    import torch

    found = ["cuda"] if torch.cuda.is_available() else []
    return [*found, *(["mps"] if torch.backends.mps.is_available() else []), "cpu"]


def fast_bf16(device):
    """Whether a device computes bfloat16 at least as fast as float32."""
    import torch

    if device == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device == "cpu" and settings.fast_bf16()  # of MPS nobody has measured it here


def arithmetic(device):
    """torch's autocast to bfloat16 where a device is fast in it; else a context that changes nothing."""
    import torch

    kind = torch.device(device).type
    return torch.autocast(kind, torch.bfloat16) if fast_bf16(kind) else nullcontext()


def free_bytes(device):
    """Bytes that are free on a graphics processor; None for one that shares the process's memory."""
    import torch

    return torch.cuda.mem_get_info()[0] if device == "cuda" else None


def wide(batch_size, device):
    """How many examples are read at once where `batch_size` suits the processor."""
    return batch_size if device == "cpu" else WIDER * batch_size


@contextmanager
def at_work(model):
    """Inside, a model is on the chosen device, whose name is yielded; afterwards it is where it was.

    A model that somebody has put on a graphics processor is used there. Not to be entered in torch.inference_mode, in
    which weights that move are new ones that can never be trained.
    """
    device, home = chosen(), next(model.parameters()).device
    stays = home.type != "cpu" or device == "cpu" or getattr(model, "is_quantized", False)
    try:
        if not stays:
            model.to(device)
        yield next(model.parameters()).device.type
    finally:
        if next(model.parameters()).device != home:  # a trainer brings it to the processor
            model.to(home)
