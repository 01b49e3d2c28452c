"""Sizes from configurations: as many weights as published, and as many bytes as are measured where one can."""

import pytest
from typer.testing import CliRunner

from slmops_lab.course import cli
from slmops_lab.errors import CourseError
from slmops_lab.training import base_model, sizes

PUBLISHED = {  # billions, as the model cards have them
    "HuggingFaceTB/SmolLM2-135M": 0.1345,
    "HuggingFaceTB/SmolLM2-360M": 0.3618,
    "Qwen/Qwen2.5-0.5B": 0.494,
    "Qwen/Qwen2.5-1.5B": 1.544,
    "HuggingFaceTB/SmolLM2-1.7B": 1.711,
    "microsoft/Phi-4-mini-instruct": 3.836,
    "meta-llama/Llama-3.1-8B": 8.030,
}


@pytest.mark.parametrize("name", sizes.KNOWN)
def test_shapes_have_the_published_number_of_weights(name):
    assert sizes.KNOWN[name].parameters / 1e9 == pytest.approx(PUBLISHED[name], rel=2e-3)


def test_a_shape_is_read_from_a_model(tiny):
    model, _ = tiny
    assert sizes.Shape.of(model.config).parameters == sum(weight.numel() for weight in model.parameters())
    with pytest.raises(CourseError, match="no decoder of the Llama family"):
        sizes.Shape.of(object())


def test_more_is_more():
    small, large = (sizes.KNOWN[f"HuggingFaceTB/SmolLM2-{size}"] for size in ("135M", "1.7B"))
    for count in (sizes.tuning_bytes, sizes.answering_bytes):
        assert count(small) < count(large)
    assert sizes.tuning_bytes(large, lora=16) < sizes.tuning_bytes(large) < sizes.tuning_bytes(large, upper=1.0)
    assert sizes.answering_bytes(large, 4) < sizes.answering_bytes(large, 16)


def test_what_does_not_fit_is_marked():
    rows = sizes.table(8e9)
    assert "no" not in " ".join(rows.loc["SmolLM2-135M"]) and "(no)" in rows.loc["Llama-3.1-8B", "tune the upper half"]
    told = CliRunner().invoke(cli.app, ["doctor", "--models"])
    assert told.exit_code == 0 and "Phi-4-mini-instruct" in told.output


@pytest.mark.weekly
def test_the_base_takes_what_was_computed():
    computed, measured = sizes.measured(base_model.fetch())
    assert measured == pytest.approx(computed, rel=0.25)
