import json

import pytest

from slmops_lab import files
from slmops_lab.course import artifacts


def fill(run, name, content):
    with artifacts.save(run, name, settings={"epochs": 2}, metrics={"exact_match": 0.5}) as folder:
        (folder / "weights").write_text(content)


KILLED = """
import os, sys
from slmops_lab import files
from slmops_lab.course import artifacts
with files.atomic_folder(sys.argv[1]) as folder:
    (folder / "weights").write_text("half")
    os.kill(os.getpid(), 9)
"""


def test_write_json_replaces_whole(tmp_path):
    files.write_json(tmp_path / "a.json", {"a": 1})
    with pytest.raises(TypeError):
        files.write_json(tmp_path / "a.json", {"a": object()})
    assert json.loads((tmp_path / "a.json").read_text()) == {"a": 1}
