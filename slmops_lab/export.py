"""Hugging Face folder -> folder that ONNX Runtime GenAI loads."""

import subprocess
import sys
import tempfile
from pathlib import Path

from slmops_lab.settings import CourseError

PRECISIONS = ("fp32", "int8", "int4")


def to_onnx(model_folder, out, precision="int4"):
    """Convert and quantize with ONNX Runtime GenAI's model builder; returns `out`.

    precision: fp32, int8 or int4 (weights in blocks of 32, rounded to nearest). The builder runs
    in a process of its own, so that its memory is given back. Raises CourseError on an unknown
    precision and where the builder leaves no model.
    """
    if precision not in PRECISIONS:
        raise CourseError(f"Precision '{precision}' is not one of {', '.join(PRECISIONS)}.")
    out = Path(out)
    with tempfile.TemporaryDirectory() as cache:
        command = [sys.executable, "-m", "onnxruntime_genai.models.builder"]
        command += ["-m", str(model_folder), "-o", str(out), "-p", precision]
        done = subprocess.run([*command, "-e", "cpu", "-c", cache], capture_output=True, text=True)
    # the exit code is not enough: what counts is whether there is a model
    if done.returncode or not (out / "model.onnx").is_file():
        lines = [line for line in done.stderr.splitlines() if line.strip()] or ["no reason given"]
        raise CourseError(f"The conversion of {model_folder} to {precision} failed: {lines[-1]}")
    return out
