"""What a running model tells about itself: metrics, and a request log without personal data.

Whether what it tells has changed is for `operations.drift` to judge. A request costs one appended line.
Metric names follow OpenTelemetry's conventions for generative AI, written as Prometheus wants them:
https://opentelemetry.io/docs/specs/semconv/gen-ai/gen-ai-metrics/ Those that they do not know begin with slmops.
"""

import datetime
import json
import re
from contextlib import suppress
from pathlib import Path

import psutil
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

# What may point to a person, most specific first. Names of people are not found: see the tests for
# what is, and do not log text where that is not enough.
PERSONAL = [
    ("email", r"(?<![\w.+-])[\w.+-]+@[\w-]+(?:\.[\w-]+)+"),
    ("link", r"(?:https?://|www\.)\S+"),
    ("iban", r"\b[A-Za-z]{2}\d{2}(?: ?[A-Za-z\d]{4}){3,7}(?: ?[A-Za-z\d]{1,3})?\b"),
    ("order", r"\b[A-Za-z]{1,4}[-_# ]?\d{4,}(?!\d)"),
    ("order", r"(?<![\w/-])(?=[\w/-]*\d)(?=[\w/-]*[A-Za-z])\w+(?:[-/]\w+){2,}"),  # such as ORD/6TFG-25
    ("number", r"\+?\(?\d(?:[ ().\-/]{0,2}\d){4,}"),  # phones, cards, order numbers without letters
]
_PERSONAL = re.compile("|".join(f"({pattern})" for _, pattern in PERSONAL))


def redact(text):
    """The text with e-mail addresses, links, IBANs, order and other long numbers replaced by [kind]."""
    return _PERSONAL.sub(lambda found: f"[{PERSONAL[found.lastindex - 1][0]}]", text)


class RequestLog:
    """One JSON line per request, redacted before it is written. path None keeps nothing."""

    def __init__(self, path=None):
        self.path = Path(path) if path else None
        if self.path:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with open(self.path, "a+b") as file:  # a crash may have cut the last line off
                if file.tell() and file.seek(-1, 2) is not None and file.read() != b"\n":
                    file.write(b"\n")

    def write(self, text, answer, **facts):
        """Note one request: what was asked and answered, redacted, and further plain facts."""
        if self.path is None:
            return
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")
        line = {"time": now, "text": redact(text), "answer": redact(answer), **facts}
        with open(self.path, "a", encoding="utf-8", errors="replace") as file:  # half a surrogate pair
            file.write(json.dumps(line, ensure_ascii=False) + "\n")

    def read(self):
        """The lines written so far, as a list of dicts; a line cut off by a crash is left out."""
        if self.path is None or not self.path.exists():
            return []
        rows = []
        for line in self.path.read_text(encoding="utf-8", errors="replace").split("\n"):
            with suppress(ValueError):
                rows.append(json.loads(line))
        return rows


class Metrics:
    """Prometheus metrics of one endpoint."""

    def __init__(self):
        self.registry = CollectorRegistry()
        labels = ("gen_ai_operation_name", "gen_ai_request_model")
        seconds = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48)
        make = {"registry": self.registry, "buckets": seconds}
        self._duration = Histogram(
            "gen_ai_server_request_duration_seconds", "from request to last token", (*labels, "error_type"), **make
        )
        self._first = Histogram("gen_ai_server_time_to_first_token_seconds", "waiting included", labels, **make)
        steps = tuple(second / 10 for second in seconds)
        self._each = Histogram(
            "gen_ai_server_time_per_output_token_seconds", "after the first one", labels, **{**make, "buckets": steps}
        )
        counts = {"registry": self.registry, "buckets": tuple(2**n for n in range(14))}
        self._tokens = Histogram(
            "gen_ai_client_token_usage", "tokens of a request", (*labels, "gen_ai_token_type"), **counts
        )
        self._cached = Counter(
            "gen_ai_client_inference_usage_cache_read_input_tokens", "not read anew", labels, registry=self.registry
        )
        self.queued = Histogram("slmops_queue_seconds", "from arrival to the first work, whatever the model", **make)
        sizes = {**make, "buckets": (1, 2, 3, 4, 8, 16)}
        self.batch = Histogram("slmops_batch_size", "requests that are answered together", **sizes)
        self.inside = Gauge("slmops_requests_inside", "requests that wait or run", registry=self.registry)
        memory = Gauge("process_resident_memory_bytes", "memory of this process", registry=self.registry)
        memory.set_function(lambda: psutil.Process().memory_info().rss)
        self._refused = Counter(
            "slmops_requests_refused", "refused before they ran", ("reason",), registry=self.registry
        )

    def done(self, model, seconds, first=None, prompt_tokens=0, answer_tokens=0, error="", cached_tokens=0):
        """Note a request that ended: seconds in all, seconds to the first token, tokens, kind of error.

        cached_tokens: those of the prompt that were kept from an earlier answer.
        """
        labels = ("chat", model)
        self._duration.labels(*labels, error).observe(seconds)
        if prompt_tokens:
            self._tokens.labels(*labels, "input").observe(prompt_tokens)
            self._cached.labels(*labels).inc(cached_tokens)
        if first is None:
            return
        self._first.labels(*labels).observe(first)
        self._tokens.labels(*labels, "output").observe(answer_tokens)
        if answer_tokens > 1:
            self._each.labels(*labels).observe((seconds - first) / (answer_tokens - 1))

    def refused(self, reason):
        """Note a request that was turned away: no token, queue full, not readable."""
        self._refused.labels(reason).inc()

    def text(self):
        """All metrics in Prometheus' text format, as bytes."""
        return generate_latest(self.registry)
