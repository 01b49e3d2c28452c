"""Several answers in one step each, by ONNX Runtime GenAI's own `Engine`.

What 0.18 offers on a CPU is *static* batching. Up to `ROWS` requests begin together; a request that is added while
they run waits until all of them have ended. Each row has a prompt, a limit and an end of its own and is told as soon as
it has ended, but it costs as much as the others until the last one ends. Joining a batch that runs is *dynamic*
batching. That takes a graph with paged attention, which the model builder makes for CUDA and WebGPU only, and a section
"engine": {"dynamic_batching": ...} in `genai_config.json`; and so do the engine's own stop texts, its seeds and its
cache of prompts. An engine has no adapters. It has guidance, but writes no forced tokens without a step, and a mask
that cannot be computed ends the engine, with everybody in it. So a batch here is for plain requests: the likeliest
token each time, with the stop texts of `runtime.Generation`. Everything else is for `GenAIRuntime.stream`. Nothing here
waits or queues.
"""

from collections import deque

from slmops_lab.deployment.runtime import Generation

ROWS = 4  # as many as the engine's scheduler puts into one static batch


class Row(Generation):
    """One answer of a batch, as `Generation` tells it. Its iterator gives "" where the next piece needs another step.

    prompt: tokens read. Iterated on by the thread that steps; ending the iteration early frees the row's request.
    """

    def __init__(self, tokenizer, prompt, limit, stop, after):
        self._made, self._over, self._end = deque(), False, tokenizer.eos_token_ids[0]
        super().__init__(self._made, tokenizer, prompt, limit, stop, after)

    def take(self, token):
        """Add a token that the engine has made."""
        self._made.append(token)

    def end(self, of_itself):
        """No more will come: of_itself where the model has ended the answer, else the limit has."""
        if of_itself:  # the engine does not give out the token that ends an answer, but it is one of the answer's
            self._made.append(self._end)
        self._over = True

    def _tokens(self):
        while self._made or not self._over:
            if self._made:
                self.answer_tokens += 1
                yield self._made.popleft()
            else:
                yield None


class Batch:
    """The engine over the model of a `GenAIRuntime`: `add` up to `ROWS` requests, then `step` until none is left.

    To be made and used by one thread, which the engine checks. `step` raises RuntimeError where the engine has failed:
    every row is lost then, and so is the engine.
    """

    def __init__(self, runtime):
        self._og, self._tokenizer = runtime._og, runtime.tokenizer
        self._engine = self._og.Engine(runtime.model)
        self._events = self._engine.create_event_buffer(ROWS)
        self._rows = {}

    def add(self, ids, limit, stop=()):
        """Ask for an answer of at most `limit` tokens to a prompt of tokens `ids`, int32, (tokens,); returns its `Row`.

        Raises CourseError on stop texts as `Generation`.
        """
        options = self._og.RequestOptions()
        options.set_max_session_tokens(len(ids) + limit)  # for so many the engine allocates memory
        request = self._engine.create_request(options=options)
        row = Row(self._tokenizer, len(ids), limit, stop, lambda: self._leave(request))
        how = self._og.TurnOptions(request)
        how.set_max_generated_tokens(limit)
        how.set_do_sample(False)
        request.begin_turn(ids, how)
        self._rows[request] = row
        return row

    def step(self):
        """Make the next token of each row: what there is to tell of it, the rows' iterators tell."""
        flag, failed = self._og.EngineEventFlags, False
        for event in self._engine.run(self._events):
            row = self._rows.get(event.request)
            failed = failed or event.flags & flag.FAILED
            if row is not None and event.flags & flag.TOKEN:
                row.take(event.token)
            if row is not None and event.flags & flag.TURN_FINISHED:
                row.cached_tokens = event.usage.cached_prompt_tokens
                row.end(event.finish_reason == self._og.FinishReason.EOS)
        if failed:
            while list(self._engine.run(self._events)):  # when all is read it raises what it failed of
                pass
            raise RuntimeError("The engine failed, and does not say of what.")

    def _leave(self, request):
        del self._rows[request]
        request.close()  # of a request that is not over, too: its row is computed on, but never looked at
