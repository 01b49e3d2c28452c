"""The endpoint under test: a runtime without a model, and a server in a thread."""

import socket
import threading
import time

import httpx
import openai
import uvicorn

CHAT = [{"role": "user", "content": "where is TT-48213? mail a@b.cd"}]
TOKEN = "a secret"
BEARER = {"Authorization": f"Bearer {TOKEN}"}


def until(condition):
    """Wait for something that happens in another thread."""
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.01)


def metric(served, name):
    """The sum of the samples whose line in the metrics begins so."""
    lines = httpx.get(f"{served.url}/metrics", headers=BEARER).text.splitlines()
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(name))


class Making:
    """Pieces come until the runtime is told to go on to the end."""

    prompt_tokens, cached_tokens, answer_tokens, finish_reason = 3, 0, 0, None

    def __init__(self, runtime):
        self.runtime = runtime

    def __iter__(self):
        try:
            yield self.runtime.begun
            while not self.runtime.go.wait(0.01):
                self.answer_tokens += 1
                yield "."
            self.finish_reason = "stop"
        finally:
            self.runtime.left.append(self.finish_reason)


class Slow:
    """A runtime without a model. begun: its first piece."""

    def __init__(self, going=False, begun="begun"):
        self.names, self.begun = ["adapter"], begun
        self.go, self.left, self.asked, self.chats = threading.Event(), [], [], []
        if going:
            self.go.set()

    def stream(self, chat, **how):
        self.asked.append(how)
        self.chats.append(chat)
        return Making(self)


class InThread:
    """uvicorn in a thread of this process."""

    def __init__(self, app):
        self.server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error", timeout_graceful_shutdown=20))
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        self.thread = threading.Thread(target=self.server.run, args=([self.listener],), daemon=True)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.server.should_exit = True
        self.thread.join(20)

    def client(self):
        return openai.OpenAI(base_url=f"{self.url}/v1", api_key=TOKEN, max_retries=0)
