import json
import subprocess
import sys
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from slmops_lab.deployment.endpoint import observability
from slmops_lab.settings import ROOT
from slmops_lab.task import data


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("write to a.b+c@mail.example.co.uk, thanks", "write to [email], thanks"),
        ("call +44 20 7946 0958 or (020) 7946-0958", "call [number] or [number]"),
        ("iban DE89 3704 0044 0532 0130 00 please", "iban [iban] please"),
        ("order TT-48213 and tt48213", "order [order] and [order]"),
        ("see https://shop.example/o?id=3&m=a@b.c now", "see [link] now"),
        ("ORD/6TFG-25 or l5x-2087-oqe", "[order] or [order]"),
        ("size 42, 2 boots, at 18:30", "size 42, 2 boots, at 18:30"),
        ("07946095812pls, phone07946095812", "[number]pls, phone[number]"),
        ("", ""),
    ],
)
def test_redaction(text, kept):
    assert observability.redact(text) == kept
    assert observability.redact(observability.redact(text)) == kept


def test_the_order_numbers_of_the_data_set_are_found():
    desk = data.load(ROOT / "data" / "support_desk")
    records = [r for split in (desk.train, desk.test, desk.drift) for r in split if r["answer"]["order_id"]]
    left = [r["id"] for r in records if r["answer"]["order_id"] in observability.redact(r["text"])]
    assert len(records) > 1_000
    assert len(left) <= 2, left  # the one that is left is spoken: "ord 8b2n 40"


def test_a_log_line_holds_no_personal_data_and_a_cut_line_is_left_out(tmp_path):
    log = observability.RequestLog(tmp_path / "a" / "log.jsonl")
    log.write("mail me at a@b.cd", '{"order_id":"TT-48213"}', model="m", seconds=0.1)
    with open(log.path, "ab") as file:
        file.write('{"time": "2026", "text": "caf\u00e9'.encode()[:-1])
    (line,) = log.read()
    assert line["text"] == "mail me at [email]"
    assert line["answer"] == '{"order_id":"[order]"}'
    assert line["model"] == "m"
    assert b"a@b.cd" not in Path(log.path).read_bytes()
    silent = observability.RequestLog()
    silent.write("x", "y")
    assert silent.read() == []


def test_a_log_goes_on_after_a_crash_and_reads_on(tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_text('{"text": "a"}\n{"text": "cut o')
    log = observability.RequestLog(path)
    log.write("b", "c")
    assert [line["text"] for line in log.read()] == ["a", "b"]


def test_redaction_takes_long_lines_in_its_stride():
    """A second's work; where it grows with the square of the length, an hour's."""
    code = "from slmops_lab.deployment.endpoint.observability import redact; n = 1_000_000; "
    code += "redact('-' * n + 'a' * n + '1-' * n + 'a.' * n + '@' * n)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_metrics_are_readable_and_count():
    metrics = observability.Metrics()
    metrics.done("student", 0.5, first=0.1, prompt_tokens=60, answer_tokens=21)
    metrics.done("student", 0.2, error="timeout")
    metrics.refused("queue_full")
    metrics.batch.observe(3)
    read = {s.name: s for f in text_string_to_metric_families(metrics.text().decode()) for s in f.samples}
    samples = [s for f in text_string_to_metric_families(metrics.text().decode()) for s in f.samples]
    durations = [s for s in samples if s.name == "gen_ai_server_request_duration_seconds_count"]
    assert {s.labels["error_type"]: s.value for s in durations} == {"": 1.0, "timeout": 1.0}
    assert read["gen_ai_server_time_to_first_token_seconds_sum"].value == 0.1
    assert read["gen_ai_server_time_per_output_token_seconds_sum"].value == pytest.approx(0.02)
    assert read["process_resident_memory_bytes"].value > 1e7
    assert (read["slmops_batch_size_sum"].value, read["slmops_batch_size_count"].value) == (3, 1)
    assert read["slmops_requests_refused_total"].labels == {"reason": "queue_full"}


def test_everything_missing_in_a_log_is_said(tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_text(json.dumps({"text": "x"}) + "\n")
    assert observability.RequestLog(path).read() == [{"text": "x"}]
