"""Guidance in the engine: is a broken one told at begin_turn, and does one that fails later end everybody's answers?"""
import json

from common import FOLDER, chats, desk, runtime

served = runtime.GenAIRuntime(FOLDER)
og = served._og
schema = json.dumps({**desk.task.json_schema(), "x-guidance": {"whitespace_flexible": False}})
broken = [("json_schema", '{"type": "colour"}'), ("lark_grammar", "start: nothing"), ("regex", "(")]
broken += [("lark_grammar", 'start: "a" start'), ("json_schema", json.dumps({"type": "string", "pattern": "(a*)*b" * 400}))]


def ask(engine, guidance):
    request = engine.create_request()
    how = og.TurnOptions(request)
    how.set_max_generated_tokens(40)
    how.set_do_sample(False)
    if guidance:
        how.set_guidance(*guidance)
    request.begin_turn(served.encode(chats[0]), how)
    return request


for guidance in [None, ("json_schema", schema), *broken]:
    engine = og.Engine(served.model)
    buffer, requests = engine.create_event_buffer(8), [ask(engine, None)]
    try:
        requests.append(ask(engine, guidance))
        ends = []
        while engine.has_pending_requests():
            ends += [(str(e.finish_reason), str(e.error_code)) for e in engine.run(buffer) if e.flags & og.EngineEventFlags.TURN_FINISHED]
        print(str(guidance)[:60], "->", ends)
    except RuntimeError as error:
        print(str(guidance)[:60], "->", str(error)[:160].replace("\n", " "))
