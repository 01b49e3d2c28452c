"""Do Engine.run and Generator.generate_next_token let other threads work? If not, the event loop stands still."""
import threading
import time

from common import FOLDER, Batch, chats, runtime, together

served = runtime.GenAIRuntime(FOLDER)
batch, gaps, stop = Batch(served), [], threading.Event()


def tick():
    last = time.perf_counter()
    while not stop.is_set():
        time.sleep(0.001)
        now = time.perf_counter()
        gaps.append(now - last)
        last = now


for name, work in (
    ("engine", lambda: [together(batch, served, chats[at : at + 4]) for at in range(0, 24, 4)]),
    ("generator", lambda: [served.generate(chat) for chat in chats[:24]]),
):
    gaps.clear()
    stop.clear()
    thread = threading.Thread(target=tick)
    thread.start()
    begun = time.perf_counter()
    work()
    stop.set()
    thread.join()
    seconds = time.perf_counter() - begun
    print(f"{name}: {seconds:.2f} s, {len(gaps)} ticks, longest gap {1e3 * max(gaps):.1f} ms")
