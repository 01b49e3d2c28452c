# %% [markdown]
# # 4 Deployment: four bits, three runtimes, one ledger
#
# The student of chapter 2 lives in the training framework, with 32-bit weights. On a shop till it has neither the room nor
# the time for that. This chapter shrinks it, runs it where it will really run, and settles the claims.
#
# **You will be able to**
#
# - convert a model to ONNX with 4-bit weights, and check that its answers survive;
# - run it with ONNX Runtime GenAI and in Foundry Local;
# - race it against its teacher, and tell apart what fewer layers, another runtime and fewer bits bring;
# - read a claim, a measurement and a verdict.
#
# **You need** chapter 2 (its teacher and student are made first where they are missing).

# %% tags=["parameters"]
dataset = "support_desk"
base_model = "smollm2-135m"
profile = None  # None: "full", or what SLMOPS_PROFILE says
seed = 0

# %%
from slmops_lab import artifacts, data, settings

run = settings.start(dataset, base_model, profile, seed)
desk = data.load(run.dataset)
teacher_folder = artifacts.need(run, "teacher")
student_folder = artifacts.need(run, "student")

# %% [markdown]
# ## 4.1 Convert and quantize
#
# The model builder of ONNX Runtime GenAI ([Microsoft](https://github.com/microsoft/onnxruntime-genai)) writes the model as a graph. For int4 it stores blocks of
# 32 weights as 4-bit numbers with one shared scale. **Predict:** fp32 has 32 bits per weight; how much smaller can
# int4 be, at best?

# %%
from slmops_lab import export, measure

onnx = {}
for precision in ("fp32", "int4"):
    with artifacts.save(run, f"student-{precision}", settings={"precision": precision}) as folder:
        export.to_onnx(student_folder, folder, precision)
    onnx[precision] = run.artifacts / f"student-{precision}"

# %%
from slmops_lab import plots

megabytes = {
    "teacher, fp32": measure.weight_bytes(teacher_folder) / 1e6,
    "student, fp32": measure.weight_bytes(onnx["fp32"]) / 1e6,
    "student, int4": measure.weight_bytes(onnx["int4"]) / 1e6,
}
plots.show(
    plots.bars(megabytes, "megabytes of model files", digits=0),
    takeaway=f"{100 * (1 - megabytes['student, int4'] / megabytes['teacher, fp32']):.0f} % of the bytes are gone",
    alt="Bar chart of model size: the int4 student is a small fraction of the fp32 teacher.",
)

# %% [markdown]
# ## 4.2 Run it with ONNX Runtime GenAI
#
# No training framework is needed any more: a tokenizer, a graph, a loop that asks for the next token.

# %%
from slmops_lab import runtime

message = desk.test[0]
chat = desk.task.messages(message["text"])
student = runtime.open_runtime("genai", onnx["int4"])
print(message["text"])
print(student.generate(chat))

# %% [markdown]
# ## 4.3 Did storing four bits change the answers?
#
# Chapter 2 trained the student with rounded weights, so int4 can store them as they are, and the fp32 graph holds the same rounded
# weights. What the rounding itself cost is not measured here; that would need a student that was never rounded. **Predict:** how many of its
# answers will change? Every test message goes once through the fp32 graph and once through the int4 graph.

# %%
from slmops_lab import evaluate
from tqdm import tqdm

tests = desk.test[: artifacts.manifest(run, "teacher")["metrics"]["n"]]  # those the teacher was measured on
chats = [desk.task.messages(record["text"]) for record in tests]
said, scores = {}, {}
for precision, folder in onnx.items():
    served = runtime.open_runtime("genai", folder)
    said[precision] = [served.generate(chat) for chat in tqdm(chats, desc=precision, leave=False)]
    scores[precision] = evaluate.score(desk.task, tests, said[precision])
    served.close()
scores["int4"].table().round(3)

# %%
changed = sum(a != b for a, b in zip(said["fp32"], said["int4"]))
cost = evaluate.difference(scores["int4"].rows["exact"], scores["fp32"].rows["exact"], run.seed)
print(f"{changed} of {len(tests)} answers changed")
print(
    f"fp32 {100 * scores['fp32'].exact:.1f} %, int4 {100 * scores['int4'].exact:.1f} % exact match; difference "
    f"{100 * cost['points']:.1f} points (95 % interval {100 * cost['low']:.1f} to {100 * cost['high']:.1f})"
)

# %% [markdown]
# The weights are the same, so what changes, changes through arithmetic. On a processor the builder lets int4 kernels round the inputs of each
# multiplication to 8 bits, too (its option `int4_accuracy_level`, [Microsoft](https://github.com/microsoft/onnxruntime-genai)); this run does not test whether that is
# the only reason.
#
# ## 4.4 The same folder in Foundry Local
#
# Foundry Local ([Microsoft](https://github.com/microsoft/Foundry-Local)) manages models on a device: register a folder, load it, chat with it. Here it runs inside this
# process, with nothing but the folder you just made. The answer is streamed piece by piece:

# %%
foundry = runtime.open_runtime("foundry", onnx["int4"])
pieces = list(foundry.stream(chat))
print(len(pieces), "pieces:", pieces[:6], "...")
print("".join(pieces))

# %%
few = chats[: run.pick(full=40, quick=10)]
same = sum(foundry.generate(c).strip() == student.generate(c).strip() for c in few)
foundry.close()
print(f"{same} of {len(few)} answers are the same as ONNX Runtime GenAI's, letter by letter")

# %% tags=["nbval-check-output"]
print("nine of ten answers agree:", same / len(few) >= 0.9)

# %% [markdown]
# ## 4.5 The race
#
# The teacher in PyTorch with 32-bit weights against the int4 student, and two steps between them. Each gets a fresh process, so that memory can
# be told apart; they take turns message by message, so that whatever else this machine does hits all. **Predict:** which step saves most: fewer
# layers and tokens, another runtime, or fewer bits?

# %%
systems = {
    "teacher, PyTorch fp32": ("torch", teacher_folder),
    "student, PyTorch fp32": ("torch", student_folder),
    "student, ONNX fp32": ("genai", onnx["fp32"]),
    "student, int4": ("genai", onnx["int4"]),
}
race, memory = runtime.race(systems, chats[: run.pick(full=40, quick=12)])
times = race.pivot(index="message", columns="system", values="ms")
times.describe(percentiles=[0.5, 0.95]).loc[["50%", "95%"], list(systems)].round(0)

# %%
medians = {name: times[name].median() for name in systems}
plots.show(
    plots.bars(medians, "milliseconds per message (median)", digits=0),
    takeaway=f"The student answers in {100 * medians['student, int4'] / medians['teacher, PyTorch fp32']:.0f} % of the teacher's time",
    alt="Bar chart of the median time per message for the teacher, the student in PyTorch, in ONNX and in int4.",
)

# %% tags=["nbval-check-output"]
print(
    "the student is at least five times as fast:",
    medians["teacher, PyTorch fp32"] / medians["student, int4"] >= 5,
)
print(
    "its process needs less than half of the memory:",
    memory["student, int4"] < memory["teacher, PyTorch fp32"] / 2,
)

# %% [markdown]
# ## 4.6 The ledger
#
# Now the claims can be settled. Each row: what people say, what this run measured, the goal, and the verdict *here*. The first rows quote a case study with
# DeepSeek-V3 as teacher and Phi-4-mini as student, the row on int4 a page on quantization (both [Microsoft](https://github.com/microsoft/edgeai-for-beginners), modules 5 and
# 4). Compared is the teacher in PyTorch and fp32 with the student as it is deployed: distillation, runtime and bits together. Chapter 2 let the teacher read in 16 bits where
# that is faster, so this is not the teacher at its best. The interval of the time comes from resampling the raced messages: it shows how messages differ,
# not how machines do. Sizes have none, they are what they are.

# %%
from slmops_lab import claims

fast, slow = times["student, int4"], times["teacher, PyTorch fp32"]
left = evaluate.ratio(fast, slow, run.seed)
saved = [100 * (1 - left[key]) for key in ("ratio", "high", "low")]
claims.record(run, "inference-time", *saved, n=len(times))["verdict"]


# %%
def saved_by(small, large):
    return 100 * (1 - small / large)


claims.record(run, "memory", saved_by(megabytes["student, int4"], megabytes["teacher, fp32"]))
claims.record(run, "process-memory", saved_by(memory["student, int4"], memory["teacher, PyTorch fp32"]))
claims.record(run, "int4-size", saved_by(megabytes["student, int4"], megabytes["student, fp32"]))
against_fp16 = saved_by(megabytes["student, int4"], megabytes["student, fp32"] / 2)
print(f"int4 against fp16, which is half of fp32: {against_fp16:.1f} % fewer bytes")

# %% [markdown]
# For the accuracy both must have answered the same messages. The teacher did so in chapter 2.

# %%
teacher_scores = evaluate.Scores.load(teacher_folder / "test_scores.json")
kept = evaluate.ratio(scores["int4"].rows["exact"], teacher_scores.rows["exact"], run.seed)
claims.record(run, "accuracy-kept", 100 * kept["ratio"], 100 * kept["low"], 100 * kept["high"], len(tests))
claims.table(run.build, "04_deployment")

# %% [markdown]
# A claim that is missed here is not refuted: other models, other machines, other data. A claim that held
# here is not proven either. What you have is your own number, and the cells to make it again.
#
# ## Exercises
#
# ### Exercise 4.1: change one number
#
# How many messages per minute can the student answer, one after the other? Compute it from `medians`.

# %% tags=["exercise"]
per_minute = ...

# %% tags=["check"]
from slmops_lab.exercises import check

check(
    "4.1",
    per_minute,
    lambda n: abs(n / (60_000 / medians["student, int4"]) - 1) < 0.01,
    hint="A minute has 60,000 milliseconds; medians['student, int4'] is the time of one message.",
    why="That is one message at a time; serving several at once is another matter.",
)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# per_minute = 60_000 / medians["student, int4"]
# ```
# </details>
#
# ### Exercise 4.2: bits per weight
#
# How many bits does the int4 file spend on each weight of the student, all included? Each weight takes four bytes in `student_folder`.

# %% tags=["exercise"]
bits_per_weight = ...

# %% tags=["check"]
student_weights = measure.weight_bytes(student_folder) / 4
check(
    "4.2",
    bits_per_weight,
    lambda bits: abs(bits - 8 * measure.weight_bytes(onnx["int4"]) / student_weights) < 0.05,
    hint="8 bits per byte: 8 * measure.weight_bytes(onnx['int4']) / (bytes of the fp32 folder / 4).",
    why="More than four: scales, norms and the graph itself need room, too.",
)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# bits_per_weight = 8 * measure.weight_bytes(onnx["int4"]) / (measure.weight_bytes(student_folder) / 4)
# ```
# </details>
#
# ### Exercise 4.3: the slow tail
#
# Give the 95th percentile of the student's times divided by its median.

# %% tags=["exercise"]
tail = ...

# %% tags=["check"]
check(
    "4.3",
    tail,
    lambda t: abs(t - fast.quantile(0.95) / fast.median()) < 0.01,
    hint="fast is a pandas Series: use quantile(0.95) and median().",
    why="Long messages make the tail; promise what the tail keeps, not the median.",
)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# tail = fast.quantile(0.95) / fast.median()
# ```
# </details>
#
# ### Exercise 4.4: write it
#
# Write `round_to_nearest(weights)`: quantize a list of numbers to the whole numbers -7 to 7 times one scale (the largest
# absolute value over 7), and return the rounded numbers. (A simpler grid than the one of chapter 2, which goes from -8 to 7.)

# %% tags=["exercise"]
round_to_nearest = ...


# %% tags=["check"]
import numpy


def right_rounding(function):
    cases = {(0.7, -0.37, 0.04, 0.0): (0.7, -0.4, 0.0, 0.0), (1.4, 0.37, -0.52, 0.02): (1.4, 0.4, -0.6, 0.0)}
    return all(numpy.allclose(function(list(weights)), rounded) for weights, rounded in cases.items())


check(
    "4.4",
    round_to_nearest,
    right_rounding,
    hint="scale = max(abs(w) for w in weights) / 7, then round(w / scale) * scale for each.",
    why="Small weights beside a large one vanish: that is why the blocks are short.",
)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def round_to_nearest(weights):
#     scale = max(abs(w) for w in weights) / 7
#     return [round(w / scale) * scale for w in weights]
# ```
# </details>
#
# ## Quiz
#
# 1. int4 is 75 % smaller. Smaller than what?
# 2. Why do teacher and student take turns in the race?
# 3. Why does each run in a process of its own?
#
# <details><summary>Answers</summary>
#
# 1. Than fp16: from 16 bits to 4. Against fp32, four bits alone would save seven eighths. Real files save less, because scales and tables need room. A
#    percentage without its base says nothing.
# 2. If one ran first and the machine got busy later, the comparison would measure the machine.
# 3. Peak memory belongs to a process. In one process the larger model would hide the smaller one.
#
# </details>
#
# ## Take-aways
#
# - Shrink twice: fewer layers, then fewer bits. Check the quality after each.
# - The runtime is part of the result: measure the model where it will run.
# - A claim needs a base, a machine and an interval.

# %%
print(f"This chapter took {run.minutes:.1f} minutes and at most {measure.peak_memory() / 1e9:.1f} GB in this process.")
