"""`batches.Batch` over a Generator of several rows, in case the engine cannot run our graphs (BATCH=generator)."""
import numpy

from slmops_lab.deployment import batches


class GeneratorBatch:
    def __init__(self, runtime):
        self.runtime, self._rows, self._generator = runtime, [], None
        self._ends = set(runtime.tokenizer.eos_token_ids)

    def add(self, ids, limit, stop=()):
        """Rows are added before the first step; the next batch begins when none is left."""
        row = batches.Row(self.runtime.tokenizer, len(ids), limit, stop, lambda: setattr(row, "_over", True))
        self._rows.append((row, ids, limit))
        return row

    def step(self):
        if self._generator is None:
            longest = max(len(ids) for _, ids, _ in self._rows)
            padded = numpy.full((len(self._rows), longest), self.runtime.tokenizer.pad_token_id, dtype=numpy.int32)
            for at, (_, ids, _) in enumerate(self._rows):
                padded[at, : len(ids)] = ids  # on the right, as encode_batch does
            length = longest + max(limit for *_, limit in self._rows)
            tensor = self.runtime._og.Tensor(padded)
            self._generator = self.runtime.start(tensor, length, batch_size=len(self._rows))
            self._made = [0] * len(self._rows)
        self._generator.generate_next_token()
        for at, token in enumerate(self._generator.get_next_tokens().tolist()):
            row, _, limit = self._rows[at]
            if row._over:
                continue
            if token in self._ends:
                row.end(True)
                continue
            row.take(token)
            self._made[at] += 1
            if self._made[at] == limit:
                row.end(False)
        if all(row._over for row, *_ in self._rows):
            self._rows, self._generator = [], None
