"""A second device that is none: its tensors are the processor's in a wrapper, and mix with no others.

So a machine without a graphics processor can show that nothing is left behind on the processor, and that the numbers
are the same. It uses PyTorch's support of backends in Python (torch.utils.backend_registration, experimental).
"""

from contextlib import contextmanager

import torch
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

NAME = "elsewhere"
_setup_privateuseone_for_python_backend(NAME)
COPIES = ("aten::to", "aten::_to_copy", "aten::copy_")  # what may have tensors of two devices


class Elsewhere(torch.Tensor):
    """A tensor of the other device; `inside` has its numbers."""

    @staticmethod
    def __new__(cls, inside):
        how = {"strides": inside.stride(), "storage_offset": inside.storage_offset(), "dtype": inside.dtype}
        how |= {"device": torch.device(NAME, 0), "requires_grad": inside.requires_grad}
        return torch.Tensor._make_wrapper_subclass(cls, inside.shape, **how)

    def __init__(self, inside):
        self.inside = inside

    def __repr__(self):
        return f"{NAME}: {self.inside!r}"

    @classmethod
    def __torch_dispatch__(cls, function, types, arguments=(), named=None):
        return _done_at_home(function, arguments, named or {})


class _Moves(TorchDispatchMode):
    def __torch_dispatch__(self, function, types, arguments=(), named=None):
        return _done_at_home(function, arguments, named or {})


class _Hidden(TorchFunctionMode):
    """What PyTorch does not dispatch: new tensors of Python's numbers, the way back to them, and lists as indices."""

    def __torch_function__(self, function, types, arguments=(), named=None):
        named = named or {}
        if function is torch.tensor and torch.device(named.get("device") or "cpu").type == NAME:
            return function(*arguments, **{**named, "device": "cpu"}).to(named["device"])
        if function is torch.Tensor.tolist:
            return function(arguments[0].cpu())
        if function is torch.Tensor.__getitem__ and isinstance(arguments[1], tuple):
            tensor, index = arguments
            index = tuple(torch.tensor(one).to(tensor.device) if isinstance(one, list) else one for one in index)
            return function(tensor, index)
        return function(*arguments, **named)


@contextmanager
def present():
    """Inside, the device is there: tensors can be made on it and moved to it."""
    with _Hidden(), _Moves():
        yield


def _done_at_home(function, arguments, named):
    """What an operation comes to, computed on the processor and wrapped. Raises RuntimeError where devices mix."""
    leaves = pytree.arg_tree_leaves(*arguments, **named)
    away = [one for one in leaves if isinstance(one, Elsewhere)]
    named_devices = [one.type for one in leaves if isinstance(one, torch.device)]
    name = function._schema.name
    home = [one for one in leaves if isinstance(one, torch.Tensor) and not isinstance(one, Elsewhere) and one.dim()]
    if away and home and name not in COPIES:
        raise RuntimeError(f"{name} has tensors of two devices")
    arguments_at_home, named_at_home = pytree.tree_map_only(Elsewhere, lambda one: one.inside, (arguments, named))
    arguments_at_home, named_at_home = pytree.tree_map_only(
        torch.device,
        lambda one: torch.device("cpu") if one.type == NAME else one,
        (arguments_at_home, named_at_home),
    )
    result = function(*arguments_at_home, **named_at_home)
    if function._schema.is_mutable and isinstance(arguments[0], torch.Tensor):
        return arguments[0]  # changed in place
    if not (named_devices[0] == NAME if named_devices else away):
        return result
    return pytree.tree_map_only(torch.Tensor, Elsewhere, result)
