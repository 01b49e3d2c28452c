"""Hugging Face folder -> folder that ONNX Runtime GenAI loads.

Trains nothing and measures nothing. A conversion runs in a process of its own with a time limit (`olive.SECONDS`); it
costs about the model's size in memory, twice over for fp32.
"""

import json
import re
import sys
import tempfile
from pathlib import Path

from slmops_lab.deployment import olive
from slmops_lab.errors import CourseError

PRECISIONS = ("fp32", "int8", "int4")
METHODS = ("rtn", "k_quant", "k_quant_mixed")


def to_onnx(model_folder, out, precision="int4", method="rtn", all_logits=False):
    """Convert and quantize with ONNX Runtime GenAI's model builder; returns `out`.

    precision: fp32, int8 or int4 (blocks of 32 weights share a scale). method, of int4: rtn rounds
    each number to the nearest, k_quant searches each block's scale for the smallest error, k_quant_mixed
    also keeps the layers that matter most in 8 bits. all_logits: the graph gives the logits of every token that
    it reads, as perplexity needs them. Without, it gives those after the last token, as an answer needs them, and
    computes the vocabulary head once per prompt, not once per token: with a small model that is much of the reading.
    The builder runs in a process of its own, so that its memory is given back. Raises CourseError on an unknown
    precision or method and where the builder leaves no model or takes too long.
    """
    for kind, given, known in (("Precision", precision, PRECISIONS), ("Method", method, METHODS)):
        if given not in known:
            raise CourseError(f"{kind} '{given}' is not one of {', '.join(known)}.")
    out = Path(out)
    _build(model_folder, out, precision, all_logits, **({} if method == "rtn" else {"algo_config": method}))
    return out


def with_adapters(model_folder, adapters, out, precision="int4"):
    """One quantized base and adapters that are switched per request; returns {name: adapter file}.

    adapters: {name: folder of a LoRA adapter of PEFT's}, all on the same modules. The base lands in
    `out`, each adapter beside it as NAME.onnx_adapter, in fp32. Raises CourseError as `to_onnx`.
    """
    out, first = Path(out), next(iter(adapters.values()))
    with tempfile.TemporaryDirectory() as scratch:
        # quantized adapters could not be left away again, so their two products stay as they are
        nodes = [_graph_name(name).removesuffix(".weight") for name in _stored(first)]
        kept = ",".join("/" + re.sub(r"\.(?!\d)", "/", node) for node in nodes)  # /model/layers.0/attn/...
        _build(model_folder, Path(scratch) / "built", precision, adapter_path=first, nodes_to_exclude=kept)
        making = ["generate-adapter", "-m", Path(scratch) / "built", "--adapter_type", "lora"]
        making += ["--adapter_format", "onnx_adapter", "-o", out.resolve()]
        olive.command(*making, makes=(out / "model.onnx").resolve(), folder=scratch)
    return {name: adapter_file(folder, out / f"{name}.onnx_adapter") for name, folder in adapters.items()}


def adapter_file(folder, target):
    """LoRA adapter folder of PEFT's -> the file that ONNX Runtime loads beside a base of `with_adapters`."""
    import onnxruntime

    config = json.loads((Path(folder) / "adapter_config.json").read_text(encoding="utf-8"))
    scale = config["lora_alpha"] / config["r"]
    parameters = {}
    for name, weight in _stored(folder).items():
        numbers = weight.T.float() * (scale if ".lora_B." in name else 1.0)  # the graph multiplies from the right
        parameters[_graph_name(name)] = onnxruntime.OrtValue.ortvalue_from_numpy(numbers.contiguous().numpy())
    file = onnxruntime.AdapterFormat()
    file.set_adapter_version(1)
    file.set_model_version(1)
    file.set_parameters(parameters)
    file.export_adapter(str(target))
    return Path(target)


def _stored(folder):
    from safetensors.torch import load_file

    return load_file(Path(folder) / "adapter_model.safetensors")


def _graph_name(name):
    """'base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight' as the model builder calls it."""
    name = name.removeprefix("base_model.model.").replace(".self_attn.", ".attn.")
    return name.replace(".weight", ".MatMul.weight")


def _build(model_folder, out, precision, all_logits=False, **options):
    options["prune_lm_head"] = str(not all_logits).lower()
    step = f"The conversion of {model_folder} to {precision}"
    with tempfile.TemporaryDirectory() as cache, tempfile.TemporaryFile("w+", errors="replace") as log:
        command = [sys.executable, "-m", "onnxruntime_genai.models.builder"]
        command += ["-m", str(model_folder), "-o", str(out), "-p", precision, "-e", "cpu", "-c", cache]
        command += ["--extra_options", *(f"{name}={value}" for name, value in options.items())]
        ended = olive.within(None, step, command, log)
        log.seek(0)
        lines = [line for line in log if line.strip()] or ["no reason given"]
    # the exit code is not enough: what counts is whether there is a model
    if ended or not (out / "model.onnx").is_file():
        raise CourseError(f"{step} failed: {lines[-1].strip()}")
    if not all_logits:
        _last_own_token(out / "model.onnx")


def _last_own_token(file):
    """Let the vocabulary head read the last token of each prompt in a batch.

    The builder's `prune_lm_head` takes the last column, but ONNX Runtime GenAI pads the shorter prompts on the right.
    """
    import onnx

    model = onnx.load(file, load_external_data=False)
    at, taken = next((i, n) for i, n in enumerate(model.graph.node) if n.name == "/lm_head/prune/Gather")
    states, name = taken.input[0], "/lm_head/prune/own"  # states: (batch, tokens, hidden size)
    make = onnx.helper.make_node
    nodes = [
        make("Constant", [], [f"{name}/one"], value_ints=[1]),
        make(
            "ReduceSum", ["attention_mask", f"{name}/one"], [f"{name}/read"], keepdims=1
        ),  # what was read before counts
        make("Shape", [states], [f"{name}/given"], start=1, end=2),
        make("Min", [f"{name}/read", f"{name}/given"], [f"{name}/tokens"]),  # (batch, 1): tokens of this step
        make("Sub", [f"{name}/tokens", f"{name}/one"], [f"{name}/last"]),
        make("GatherND", [states, f"{name}/last"], taken.output, batch_dims=1),
    ]
    kept = [*model.graph.node[:at], *nodes, *model.graph.node[at + 1 :]]
    del model.graph.node[:]
    model.graph.node.extend(kept)
    onnx.save(model, file)
