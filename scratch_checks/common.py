"""Shared by the checks: python NN_name.py [MODEL_FOLDER]; run with PYTHONPATH=., on a quiet machine."""
import os
import sys

os.environ.setdefault("CI", "1")
from generator_batch import GeneratorBatch  # noqa: E402

from slmops_lab.deployment import batches, runtime  # noqa: E402
from slmops_lab.settings import ROOT  # noqa: E402
from slmops_lab.task import data  # noqa: E402

FOLDER = sys.argv[1] if len(sys.argv) > 1 else "artifacts/full/support_desk/student-int4"
Batch = GeneratorBatch if os.environ.get("BATCH") == "generator" else batches.Batch
desk = data.load(ROOT / "data" / "support_desk")
chats = [desk.task.messages(record["text"]) for record in desk.test]


def together(batch, served, some, limit=64):
    """Texts of some chats, answered in one batch."""
    rows = [batch.add(served.encode(chat, limit), limit) for chat in some]
    texts, live = [""] * len(rows), {i: iter(row) for i, row in enumerate(rows)}
    for _ in range(4 * limit):
        for i, pieces in list(live.items()):
            for piece in pieces:
                texts[i] += piece
                if not piece:
                    break
            else:
                del live[i]
        if not live:
            return texts
        batch.step()
    raise SystemExit(f"not ended: {texts}")
