"""What genai_config.json's "engine" section does on a CPU: a larger static batch, dynamic batching."""
import json

from common import FOLDER, chats, runtime

og = __import__("onnxruntime_genai")
tokenizer_of = runtime.GenAIRuntime(FOLDER)
for told in (
    {},
    {"engine": {"static_batching": {"max_batch_size": 8}}},
    {"engine": {"dynamic_batching": {"max_batch_size": 4, "block_size": 256, "num_blocks": 64}}},
):
    try:
        config = og.Config(FOLDER)
        config.overlay(json.dumps(told))
        engine = og.Engine(og.Model(config))
        buffer, requests = engine.create_event_buffer(16), []
        for chat in chats[:8]:
            requests.append(engine.create_request())
            how = og.TurnOptions(requests[-1])
            how.set_max_generated_tokens(3)
            how.set_do_sample(False)
            requests[-1].begin_turn(tokenizer_of.encode(chat), how)
        sizes = []
        while engine.has_pending_requests():
            sizes.append(len(list(engine.run(buffer))))
        print(told, "rows", engine.get_capabilities().configured_max_batch_size, "events a step", sizes)
    except Exception as error:
        print(told, "->", type(error).__name__, str(error)[:200])
