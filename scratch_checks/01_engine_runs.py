"""Does og.Engine run our graph (logits of the last token only)? What do its Python objects look like?"""
from common import FOLDER, Batch, chats, runtime, together

served = runtime.GenAIRuntime(FOLDER)
og = served._og
engine = og.Engine(served.model)
told = engine.get_capabilities()
print("rows", told.configured_max_batch_size, "tokens a step", told.max_scheduled_tokens, told.max_request_length)
buffer = engine.create_event_buffer(4)
request = engine.create_request(options=og.RequestOptions())
how = og.TurnOptions(request)
how.set_max_generated_tokens(2)
how.set_do_sample(False)
print("turn", request.begin_turn(served.encode(chats[0]), how))
for number in range(4):
    got = engine.run(buffer)
    print("step", number, type(got), "len", len(got), "same object", got is buffer)
    for event in got:
        print("  request found in a dict:", event.request in {request: 1}, "is", event.request is request)
        print("  flags", type(event.flags), event.flags, "token bit", event.flags & og.EngineEventFlags.TOKEN)
        print("  token", event.token, "reason", event.finish_reason, event.finish_reason == og.FinishReason.EOS)
        usage = event.usage
        print("  usage", usage and (usage.prompt_tokens, usage.generated_tokens, usage.cached_prompt_tokens))
request.close()
print("pending after close", engine.has_pending_requests())
for number in (1, 2, 3, 4):
    texts = together(Batch(served), served, chats[:number])
    print(number, "same texts as alone:", texts == [served.generate(chat) for chat in chats[:number]])
