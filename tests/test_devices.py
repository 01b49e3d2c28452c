"""Where models learn and read: what is asked for, and what is here. The work itself is tried in elsewhere_checks.py."""

import subprocess
import sys
from pathlib import Path

import pytest

from slmops_lab import devices
from slmops_lab.errors import CourseError

NVIDIA, APPLE = "torch.cuda.is_available", "torch.backends.mps.is_available"


@pytest.mark.parametrize("asked", ["", "cpu"])
def test_the_processor_unless_another_is_asked_for(monkeypatch, asked):
    monkeypatch.setenv(devices.VARIABLE, asked)
    monkeypatch.setattr(NVIDIA, lambda: True)
    assert devices.chosen() == "cpu"


@pytest.mark.parametrize(
    ("nvidia", "apple", "taken"), [(True, True, "cuda"), (False, True, "mps"), (False, False, "cpu")]
)
def test_auto_takes_the_fastest(monkeypatch, nvidia, apple, taken):
    monkeypatch.setenv(devices.VARIABLE, "auto")
    monkeypatch.setattr(NVIDIA, lambda: nvidia)
    monkeypatch.setattr(APPLE, lambda: apple)
    assert devices.chosen() == taken


@pytest.mark.parametrize(
    ("asked", "said"), [("cuda", "none here"), ("mps", "none here"), ("gpu", "give auto, cpu"), ("cuda:1", "give auto")]
)
def test_a_device_that_is_not_here_is_said(monkeypatch, asked, said):
    monkeypatch.setenv(devices.VARIABLE, asked)
    monkeypatch.setattr(NVIDIA, lambda: False)
    monkeypatch.setattr(APPLE, lambda: False)
    with pytest.raises(CourseError, match=said):
        devices.chosen()


def test_more_is_read_at_once_there():
    assert devices.wide(16, "cuda") == 4 * devices.wide(16, "cpu") == 64


def test_on_a_device_that_is_none_models_learn_and_read_the_same():
    checks = Path(__file__).with_name("elsewhere_checks.py")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(checks)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout[-6_000:] + done.stderr[-2_000:]
