"""Microsoft Olive's command line, for the versions pinned here: `python -m slmops_lab.olive_shim run --config ...`

Olive 0.13.0's ModelBuilder pass was written for the model builder of onnxruntime-genai before 0.15.
Since then the builder wants its options parsed first, calls them by other names, and no longer has
the module that the pass patches. `NEEDED` says whether that is so for what is installed; where it is
not, this is Olive's command line and nothing more, and can go.
"""

import importlib.util
import inspect
import sys

from slmops_lab import settings  # noqa: F401  quiets Olive before it is imported

OLIVE_PATCHES = "onnxruntime_genai.models.quantized_model"  # what Olive 0.13.0 imports


def needed():
    """Whether the installed Olive and onnxruntime-genai do not fit together by themselves."""
    from olive.passes.onnx.model_builder import ModelBuilder

    return OLIVE_PATCHES in inspect.getsource(ModelBuilder) and importlib.util.find_spec(OLIVE_PATCHES) is None


def install():
    """Let Olive's ModelBuilder pass call today's model builder. Does nothing where that is not `needed`."""
    if not needed():
        return
    from olive.passes.onnx.model_builder import ModelBuilder
    from onnxruntime_genai.models import builder

    build = builder.create_model

    def create_model(model_name, input_path, output_dir, precision, execution_provider, cache_dir, **options):
        if "hf_details" not in options:  # as the pass calls it: not parsed yet
            precision = getattr(precision, "value", precision)
            source = "" if input_path == model_name else input_path
            pairs = [f"{name.removeprefix('int4_')}={_text(name, value)}" for name, value in options.items()]
            places = (output_dir, precision, execution_provider, cache_dir)
            options = builder.parse_extra_options(model_name, source, *places, pairs)
        return build(model_name, input_path, output_dir, precision, execution_provider, cache_dir, **options)

    builder.create_model = create_model
    ModelBuilder.maybe_patch_quant = staticmethod(lambda: None)


def _text(name, value):
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (list, tuple)):
        return ("," if name.endswith("nodes_to_exclude") else "/").join(map(str, value))
    return str(value)


if __name__ == "__main__":
    install()
    from olive.cli.launcher import main

    main(sys.argv[1:])
