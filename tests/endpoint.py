"""A real HTTP server on this machine that speaks OpenAI's chat protocol, fails and lies as told."""

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


def reply(content='{"kind":"warm","word":null}', finish="stop", log_probs=None):
    """A chat completion as the protocol has it."""
    told = {"content": [{"token": "x", "logprob": p, "bytes": None, "top_logprobs": []} for p in log_probs or []]}
    choice = {
        "index": 0,
        "finish_reason": finish,
        "message": {"role": "assistant", "content": content},
        "logprobs": told if log_probs else None,
    }
    usage = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}
    return {"id": "1", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice], "usage": usage}


class Endpoint(ThreadingHTTPServer):
    """Answers the n-th request with script[n]: a dict, a (status, headers, body), 'slow' or 'cut'. Then with `then`.

    Either may be a function: request -> one of these.
    """

    daemon_threads = True

    def __init__(self, script, then):
        super().__init__(("127.0.0.1", 0), Handler)
        self.script, self.then = list(script), then
        self.seen, self.lock = [], threading.Lock()
        self.at_once = self.most_at_once = 0

    def serve_forever(self, poll_interval=0.02):  # half a second by default, which every test would wait at its end
        super().serve_forever(poll_interval)

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_address[1]}/v1"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        server = self.server
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with server.lock:
            server.seen.append((time.monotonic(), asked))
            step = server.script.pop(0) if server.script else server.then
            server.at_once += 1
            server.most_at_once = max(server.at_once, server.most_at_once)
        try:
            if callable(step):
                step = step(asked)
            if step == "slow":
                time.sleep(1.5)
                step = server.then
            self.give(step)
        finally:
            with server.lock:
                server.at_once -= 1

    def give(self, step):
        cut = step == "cut"
        status, headers, body = step if isinstance(step, tuple) else (200, {}, self.server.then if cut else step)
        body = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", "Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body[: len(body) // 2] if cut else body)
        self.close_connection = cut

    def log_message(self, *args):
        pass
