"""Make a model smaller by taking parts away."""

import copy

from torch.nn import ModuleList

from slmops_lab.settings import CourseError


def keep_layers(model, keep):
    """A copy of a decoder-only model with only the layers `keep` (indices, in order).

    Embeddings, final norm and vocabulary head stay. Raises CourseError for an index that the model
    does not have, and for an empty or repeated selection.
    """
    layers = model.model.layers
    if not keep or len(set(keep)) != len(keep) or not all(0 <= i < len(layers) for i in keep):
        raise CourseError(f"Cannot keep layers {list(keep)} of a model with {len(layers)} layers.")
    config = copy.deepcopy(model.config)
    config.num_hidden_layers = len(keep)
    if getattr(config, "layer_types", None):
        config.layer_types = [config.layer_types[i] for i in keep]
    # deepcopy's memo leaves the dropped layers uncopied
    small = copy.deepcopy(model, {id(layers): ModuleList(copy.deepcopy(layers[i]) for i in keep)})
    for position, layer in enumerate(small.model.layers):
        layer.self_attn.layer_idx = position  # where the layer finds its keys and values
    small.config = small.model.config = config
    small.tie_weights()
    return small


def first_and_last(total, count):
    """Indices of `count` of `total` layers: the first ones and the very last.

    The last layer writes what the vocabulary head reads. Raises CourseError where count is not
    from 2 to total.
    """
    if not 2 <= count <= total:
        raise CourseError(f"A student of {count} layers cannot be cut from {total}: take 2 to {total}.")
    return [*range(count - 1), total - 1]
