"""Training, generation, pruning, distillation, export and runtimes, on a tiny Llama."""

import json
import math
import random
import sys

import hypothesis
import numpy
import onnx
import psutil
import pytest
import torch

from slmops_lab import (
    base_model,
    compress,
    data,
    distill,
    evaluate,
    export,
    measure,
    runtime,
    tasks,
    teachers,
    training,
)
from slmops_lab.settings import CourseError

CHATS = [[{"role": "user", "content": text}] for text in ["hi", "where is my parcel TT-1?", "one two three " * 9]]


def examples(tokenizer, count=8):
    return [
        training.encode(tokenizer, [{"role": "user", "content": "say " + "a " * i}], f"answer {i}")
        for i in range(count)
    ]


def test_only_the_answer_counts(tokenizer):
    example = training.encode(tokenizer, CHATS[1], '{"a":"TT-1"}')
    counted = [t for t in example["labels"] if t != training.IGNORE]
    assert tokenizer.decode(counted) == '{"a":"TT-1"}' + tokenizer.eos_token
    prompt = example["input_ids"][: -len(counted)]
    assert prompt == training.prompt_ids(tokenizer, CHATS[1])
    assert example["labels"][: len(prompt)] == [training.IGNORE] * len(prompt)


def test_loss_on_answer_tokens_is_the_models_own_loss(tiny):
    model, tokenizer = tiny
    batch = training.collate(tokenizer)(examples(tokenizer))
    own = model(**batch).loss
    done = training.forward(model, batch)
    assert torch.allclose(training.answer_loss(model, done, batch), own, atol=1e-5)


def test_layers_are_seen_where_they_read(tiny):
    model, tokenizer = tiny
    lesson = examples(tokenizer, 1)[0]
    batch = training.collate(tokenizer)([lesson, {k: v[2:] for k, v in lesson.items()}])
    done = training.forward(model, batch)
    read = []
    hook = model.model.layers[2].register_forward_pre_hook(lambda _, args: read.append(args[0]))
    alone = model(torch.tensor([lesson["input_ids"]]), output_hidden_states=True)
    hook.remove()
    count = len(lesson["input_ids"])
    assert done.layer(2).shape[0] == 2 * count - 2, "padding is left out"
    assert torch.allclose(done.layer(2)[:count], read[0][0], atol=1e-5)
    logits = model.get_output_embeddings()(done.layer(-1)[:count])
    assert torch.allclose(logits, alone.logits[0], atol=1e-5)


def test_a_loss_on_inner_layers_has_the_same_gradient_when_activations_are_recomputed(tiny_folder, monkeypatch):
    gradients = []
    for kept in (10**9, 0):
        monkeypatch.setattr(training, "KEPT_ACTIVATIONS", kept)
        monkeypatch.setattr(training, "fast_bf16", lambda: False)
        model, tokenizer = base_model.open_model(tiny_folder)

        def loss(model, done, batch):
            return done.layer(2).square().mean() + training.answer_loss(model, done, batch)

        training.train(model, tokenizer, examples(tokenizer), loss=loss, max_steps=2, learning_rate=1e-2)
        gradients.append(model.model.layers[0].mlp.up_proj.weight.detach())
    assert torch.allclose(*gradients, atol=1e-6)


def test_training_learns_and_is_repeatable(tiny_folder):
    losses = []
    for _ in range(2):
        torch.manual_seed(0)
        model, tokenizer = base_model.open_model(tiny_folder)
        history = training.train(
            model,
            tokenizer,
            examples(tokenizer),
            num_train_epochs=40,
            learning_rate=1e-2,
            seed=1,
            logging_steps=1,
            per_device_train_batch_size=4,
            gradient_accumulation_steps=1,
        )
        losses.append(history["loss"].tolist())
    assert losses[0] == losses[1]
    assert losses[0][-1] < losses[0][0] / 2
    answer = evaluate.generate(model, tokenizer, [[{"role": "user", "content": "say a a "}]], 8)[0]
    assert answer.startswith("answer")
    assert not any(layer.gradient_checkpointing for layer in model.model.layers), "left as it was found"


def test_a_training_that_breaks_leaves_the_model_as_it_was_found(tiny):
    model, tokenizer = tiny
    attention = model.config._attn_implementation

    def breaks(model, done, batch):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        training.train(model, tokenizer, examples(tokenizer), loss=breaks, num_train_epochs=1)
    assert model.config._attn_implementation == attention
    assert "_original_forward" not in vars(model) and not model.training
    assert not any(layer.gradient_checkpointing for layer in model.model.layers)


def test_bf16_is_used_where_it_is_said_to_be(tiny, monkeypatch):
    """The loss goes around model.forward, where accelerate would switch it on."""
    model, tokenizer = tiny
    seen = []
    monkeypatch.setattr(training, "fast_bf16", lambda: True)

    def spy(model, done, batch):
        seen.append(model.get_output_embeddings()(done.states).dtype)
        return training.answer_loss(model, done, batch)

    training.train(model, tokenizer, examples(tokenizer), loss=spy, max_steps=1)
    assert set(seen) == {torch.bfloat16}


def test_a_trained_model_computes_as_its_saved_copy_does(tiny, tmp_path, monkeypatch):
    model, tokenizer = tiny
    monkeypatch.setattr(training, "fast_bf16", lambda: True)
    training.train(model, tokenizer, examples(tokenizer), max_steps=2)
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    again, _ = base_model.open_model(tmp_path)
    ids = torch.tensor([tokenizer("hello there").input_ids])
    assert torch.equal(model(ids).logits, again(ids).logits)


def test_answers_do_not_depend_on_the_batch(tiny):
    model, tokenizer = tiny
    together = evaluate.generate(model, tokenizer, CHATS, 12, batch_size=3)
    alone = [evaluate.generate(model, tokenizer, [chat], 12)[0] for chat in CHATS]
    assert together == alone


def test_kept_layers_are_the_teachers(tiny):
    model, _ = tiny
    small = compress.keep_layers(model, [0, 3])
    assert small.config.num_hidden_layers == 2 and model.config.num_hidden_layers == 4
    assert torch.equal(small.model.layers[1].mlp.up_proj.weight, model.model.layers[3].mlp.up_proj.weight)
    assert [layer.self_attn.layer_idx for layer in small.model.layers] == [0, 1]
    assert small.lm_head.weight is small.model.embed_tokens.weight
    small.model.layers[0].mlp.up_proj.weight.data.zero_()
    assert model.model.layers[0].mlp.up_proj.weight.abs().sum() > 0, "a copy, not a view"


def test_a_student_can_change_its_attention_kernel_alone(tiny):
    model, _ = tiny
    before = model.config._attn_implementation
    small = compress.keep_layers(model, [0, 3])
    small.set_attn_implementation("eager")
    assert {layer.self_attn.config._attn_implementation for layer in small.model.layers} == {"eager"}
    assert {layer.self_attn.config._attn_implementation for layer in model.model.layers} == {before} != {"eager"}


def test_keeping_all_layers_changes_nothing(tiny):
    model, tokenizer = tiny
    ids = torch.tensor([tokenizer("hello there").input_ids])
    assert torch.equal(compress.keep_layers(model, [0, 1, 2, 3])(ids).logits, model(ids).logits)


@pytest.mark.parametrize("keep", [[], [0, 0], [4], [-1]])
def test_layers_that_are_not_there(tiny, keep):
    with pytest.raises(CourseError, match="of a model with 4 layers"):
        compress.keep_layers(tiny[0], keep)


def test_spread():
    assert compress.spread(30, 4) == [0, 10, 19, 29]
    assert compress.spread(5, 5) == [0, 1, 2, 3, 4]
    for count in (31, 1):
        with pytest.raises(CourseError, match=f"A student of {count} layers cannot be cut from 30: take 2 to 30"):
            compress.spread(30, count)


TEXTS = ["where is my parcel TT-4711?", "the café's naïve 🙂 refund"]


def test_a_smaller_vocabulary_reads_and_answers_the_same(tiny):
    model, tokenizer = tiny
    small, words, ids = compress.keep_vocabulary(model, tokenizer, TEXTS, first=600)
    assert len(ids) == len(words) == small.config.vocab_size < len(tokenizer) / 10
    assert small.lm_head.weight is small.model.embed_tokens.weight and model.config.vocab_size == len(tokenizer)
    for text in TEXTS:
        old, new = tokenizer(text).input_ids, words(text).input_ids
        assert ids[new].tolist() == old, "texts of kept words are cut up as before"
        logits = model(torch.tensor([old])).logits[..., ids]
        assert torch.allclose(small(torch.tensor([new])).logits, logits, atol=1e-5)
    assert words.decode(words.eos_token_id) == tokenizer.eos_token
    assert small.generation_config.eos_token_id == words.eos_token_id


def test_any_text_survives_a_smaller_vocabulary(tiny):
    tokenizer = tiny[1]
    _, words, _ = compress.keep_vocabulary(*tiny, TEXTS, first=600)

    @hypothesis.given(hypothesis.strategies.text())
    def read_back(text):
        # some bytes of the rarest alphabets are missing in the model's own vocabulary, too
        assert words.decode(words(text).input_ids) == tokenizer.decode(tokenizer(text).input_ids)

    read_back()


def test_a_smaller_vocabulary_survives_saving_and_export(tiny, tmp_path):
    small, words, _ = compress.keep_vocabulary(*tiny, [t for chat in CHATS for t in [chat[0]["content"]]], first=600)
    small.save_pretrained(tmp_path / "hf")
    words.save_pretrained(tmp_path / "hf")
    served = runtime.open_runtime("genai", export.to_onnx(tmp_path / "hf", tmp_path / "onnx", "fp32"))
    for chat in CHATS:
        assert served.generate(chat, 8) == evaluate.generate(small, words, [chat], 8, label=None)[0]
    served.close()


def test_a_vocabulary_that_is_not_made_of_merges(tiny):
    class WordPiece:
        class backend_tokenizer:
            to_str = staticmethod(lambda: json.dumps({"model": {"type": "WordPiece"}}))

    with pytest.raises(CourseError, match="A WordPiece vocabulary cannot be cut here"):
        compress.keep_vocabulary(tiny[0], WordPiece(), TEXTS)


def test_snapped_weights_stay_where_they_are():
    torch.manual_seed(0)
    weight = torch.randn(6, 80)
    weight[0, :32] = 0
    snapped = compress.snap(weight)
    assert torch.allclose(compress.snap(snapped), snapped, atol=1e-6)
    assert max(len(block.unique()) for block in snapped[:, :64].reshape(-1, 32)) <= 16
    blocks = (snapped - weight)[:, :64].reshape(-1, 32).abs().amax(1)
    assert (blocks <= weight[:, :64].reshape(-1, 32).abs().amax(1) / 8 + 1e-6).all()


def stored_int4(folder, name):
    """The weight that an int4 graph computes with: (rows, columns)."""
    graph = onnx.load(folder / "model.onnx").graph
    node = next(n for n in graph.node if n.op_type == "MatMulNBits" and name in n.name)
    values = {
        t.name: onnx.numpy_helper.to_array(t, str(folder)) for t in graph.initializer if t.name in node.input[1:3]
    }
    packed, scales = (torch.tensor(values[i]) for i in node.input[1:3])
    numbers = torch.stack([packed & 15, packed >> 4], dim=-1).flatten(-2).to(torch.float) - 8
    return (numbers * scales.reshape(*numbers.shape[:-1], 1)).flatten(1)


def test_int4_changes_a_student_no_more_that_was_trained_for_it(tiny, tmp_path):
    model, tokenizer = tiny
    before = model.model.layers[0].mlp.up_proj.weight.detach().clone()
    with compress.four_bits(model):
        training.train(model, tokenizer, examples(tokenizer), num_train_epochs=2, learning_rate=1e-2)
    after = model.model.layers[0].mlp.up_proj.weight.detach()
    assert not torch.allclose(before, after, atol=1e-3), "it learned"
    assert torch.allclose(compress.snap(after), after, atol=1e-6)
    model.save_pretrained(tmp_path / "hf")
    tokenizer.save_pretrained(tmp_path / "hf")
    folder = export.to_onnx(tmp_path / "hf", tmp_path / "int4", "int4")
    assert torch.allclose(stored_int4(folder, "layers.0/mlp/up_proj"), after, atol=1e-6)


def test_teacher_states_give_the_teachers_probabilities(tiny, monkeypatch):
    model, tokenizer = tiny
    monkeypatch.setattr(training, "fast_bf16", lambda: False)
    lessons = examples(tokenizer, 5)
    studied, confidences = distill.study(model, tokenizer, lessons, batch_size=2)
    for lesson, with_states, confidence in zip(lessons, studied, confidences, strict=True):
        batch = training.collate(tokenizer)([lesson])
        logits = model(batch["input_ids"]).logits.log_softmax(-1)[0, :-1]
        answer = batch["labels"][0, 1:] != training.IGNORE
        wanted = logits[answer].gather(1, batch["labels"][0, 1:][answer][:, None]).sum().exp()
        assert confidence == pytest.approx(wanted.item(), rel=1e-3)
        assert with_states["teacher_states"].shape == (len(lesson["input_ids"]), 1, 64)


def test_another_tokenizer_is_refused_before_its_doubts_are_compared(tiny):
    model, tokenizer = tiny
    _, few_tokens, _ = compress.keep_vocabulary(model, tokenizer, ["some words"], first=400)
    lessons = examples(few_tokens, 2)
    assert distill.shared_tokens(tokenizer, tokenizer) == 1
    assert distill.shared_tokens(tokenizer, few_tokens) < 0.1 and distill.shared_tokens(few_tokens, tokenizer) < 0.1
    with pytest.raises(CourseError, match=r"different tokenizers \(\d % of the tokens agree\)"):
        distill.study(model, tokenizer, lessons, student_tokenizer=few_tokens)
    assert distill.study(model, tokenizer, examples(tokenizer, 2), student_tokenizer=tokenizer)[0]


def test_on_policy_moves_the_student_towards_its_teacher(tiny_folder, tmp_path):
    from datasets import Dataset
    from trl import DistillationConfig, DistillationTrainer

    (teacher, tokenizer), (student, _) = base_model.open_model(tiny_folder), base_model.open_model(tiny_folder)
    with torch.no_grad():
        for weight in student.model.layers.parameters():
            weight.mul_(0.7)
    batch = training.collate(tokenizer)(examples(tokenizer))

    def apart():
        with torch.inference_mode():
            ours, theirs = (
                model.get_output_embeddings()(training.forward(model, batch).states).float().log_softmax(-1)
                for model in (student, teacher)
            )
        return (theirs.exp() * (theirs - ours)).sum(-1).mean().item()

    before, out = apart(), tmp_path / "out"
    frozen = {name: weight.clone() for name, weight in teacher.state_dict().items()}
    config = training.arguments(
        out, DistillationConfig, num_train_epochs=4, learning_rate=2e-3, max_completion_length=8, warmup_steps=0,
        activation_checkpointing=False, logging_steps=1,
    )  # fmt: skip
    questions = Dataset.from_list([{"prompt": chat} for chat in CHATS * 4])
    trainer = DistillationTrainer(student, teacher, config, questions, processing_class=tokenizer)
    history = training.run(trainer, "own words")
    assert apart() < before / 2
    assert len(history) == 12 and history.attrs["seconds"] > 0
    assert all(torch.equal(frozen[name], weight) for name, weight in teacher.state_dict().items())
    for model in (student, teacher):
        assert "_original_forward" not in vars(model), "accelerate's wrapper is gone"
    assert not list(out.rglob("*.safetensors"))


def test_states_follow_their_answers_into_the_batch(tiny):
    model, tokenizer = tiny
    studied, _ = distill.study(model, tokenizer, examples(tokenizer, 4))
    order = [2, 0, 3]
    batch = training.collate(tokenizer)([studied[i] for i in order])
    assert torch.equal(batch["teacher_states"], torch.cat([studied[i]["teacher_states"] for i in order]))


def test_unusable_labels_keep_their_reason(tiny, colours, monkeypatch):
    task = tasks.load(colours)
    said = [
        '{"kind":"warm","word":"red"}',
        "I think warm",
        '{"kind":"warm","word":"lila"}',
        '{"kind":"hot","word":null}',
    ]
    monkeypatch.setattr(evaluate, "generate_scored", lambda *a, **k: (said, [-0.1] * 4))
    labels = distill.label(teachers.LocalTeacher(*tiny), task, data.load(colours).pool)
    assert labels[0].confidence == pytest.approx(math.exp(-0.1))
    assert [x.answer is not None for x in labels] == [True, False, False, False]
    assert [x.problem and x.problem.split(" ")[0] for x in labels] == [None, "no", "word", "kind"]


def test_scores_by_hand(colours):
    task = tasks.load(colours)
    records = [{"answer": {"kind": "warm", "word": w}} for w in ("red", "red", None, "red")]
    texts = [
        '{"kind":"warm","word":"red"}',
        '{"kind":"cold","word":"red"}',
        '{"kind":"warm","word":null}',
        "?",
    ]
    scores = evaluate.score(task, records, texts)
    assert scores.rows.sum().to_dict() == {"exact": 2, "kind": 2, "word": 3, "valid": 3}
    assert scores.table().loc["exact match", "share"] == 0.5
    with pytest.raises(ValueError):
        evaluate.score(task, records, texts[:2])


def test_intervals():
    # Newcombe 1998, Statistics in Medicine 17:857, table I, method 3: 81 of 263
    interval = evaluate.proportion([True] * 81 + [False] * 182)
    assert (round(interval["low"], 4), round(interval["high"], 4)) == (0.2553, 0.3662)
    assert (evaluate.proportion([])["low"], evaluate.proportion([])["high"]) == (0, 1)
    rng = numpy.random.default_rng(0)
    ours, theirs = rng.random(400) < 0.6, rng.random(400) < 0.8
    kept = evaluate.ratio(ours, theirs)
    assert kept["ratio"] == pytest.approx(ours.mean() / theirs.mean())
    assert kept["low"] < kept["ratio"] < kept["high"]
    gap = evaluate.difference(ours, theirs)
    assert gap["low"] < gap["points"] < gap["high"] < 0
    assert evaluate.difference(ours, ours)["high"] == 0


def test_keyword_baseline_learns_words_and_shapes(colours):
    task = tasks.load(colours)
    train = [
        {"text": f"{w} {n} now", "answer": {"kind": k, "word": n}}
        for w, k in [("sun", "warm"), ("ice", "cold")]
        for n in ("AB-12", "XY-98")
    ]
    guesses = evaluate.keyword_baseline(task, train, ["ice please CD-77.", "sun 12345"])
    assert guesses == [{"kind": "cold", "word": "CD-77"}, {"kind": "warm", "word": None}]
    assert evaluate.keyword_baseline(task, train, []) == []
    assert evaluate.word_counter(task, train, ["ice please CD-77.", "sun 12345"])[0] == guesses
    _, (sure, torn) = evaluate.word_counter(task, train, ["ice ice AB-12", "sun or ice"])
    assert torn == pytest.approx(0.5, abs=0.01) and torn < sure < 1
    assert evaluate.word_counter(task, train, []) == ([], [])


def test_onnx_answers_as_torch_does(tiny_folder, tiny_onnx):
    torch_runtime = runtime.open_runtime("torch", tiny_folder)
    onnx_runtime = runtime.open_runtime("genai", tiny_onnx)
    for chat in CHATS:
        assert onnx_runtime.generate(chat, 10) == torch_runtime.generate(chat, 10)
    onnx_runtime.close()


def test_int4_is_smaller(tiny_folder, tiny_onnx, tmp_path):
    small = export.to_onnx(tiny_folder, tmp_path / "int4", "int4")
    assert measure.weight_bytes(small) < measure.weight_bytes(tiny_onnx) / 2
    assert isinstance(runtime.open_runtime("genai", small).generate(CHATS[0], 4), str)


def test_fewer_positions_make_a_smaller_file_that_names_its_limit(tiny, tiny_onnx, tmp_path):
    model, tokenizer = tiny
    model.config.max_position_embeddings = 64
    model.save_pretrained(tmp_path / "short")
    tokenizer.save_pretrained(tmp_path / "short")
    short = export.to_onnx(tmp_path / "short", tmp_path / "onnx", "fp32")
    assert measure.weight_bytes(short) < measure.weight_bytes(tiny_onnx)
    served = runtime.open_runtime("genai", short)
    assert served.generate(CHATS[0], 8) == runtime.open_runtime("genai", tiny_onnx).generate(CHATS[0], 8)
    with pytest.raises(CourseError, match="more than the 64 positions of this model: shorten it"):
        served.generate([{"role": "user", "content": "warm " * 200}], 8)


def test_foundry_serves_the_same_folder_again_and_again(tiny_onnx, tmp_path, monkeypatch):
    monkeypatch.setenv("SLMOPS_HOME", str(tmp_path))
    wanted = runtime.open_runtime("genai", tiny_onnx).generate(CHATS[1], 8)
    for _ in range(2):  # a cell that is run twice
        served = runtime.open_runtime("foundry", tiny_onnx)
        assert served.generate(CHATS[1], 8) == wanted
        served.close()


def test_race_takes_turns_in_processes_of_their_own(tiny_folder, tiny_onnx):
    systems = {"torch": ("torch", tiny_folder), "onnx": ("genai", tiny_onnx)}
    answers, memory = runtime.race(systems, CHATS, warm_up=1)
    turns = [answer["system"].tolist() for _, answer in answers.groupby("message")]
    assert turns == [["torch", "onnx"], ["onnx", "torch"], ["torch", "onnx"]], "each is first as often as the others"
    assert (answers["ms"] > 0).all()
    assert memory["onnx"] < memory["torch"], "a process that serves ONNX does not load torch"


def test_runtime_and_precision_that_do_not_exist(tiny_folder, tmp_path):
    with pytest.raises(CourseError, match="There is no runtime 'tflite'"):
        runtime.open_runtime("tflite", tiny_folder)
    with pytest.raises(CourseError, match="it has no genai_config.json"):
        runtime.open_runtime("genai", tmp_path)
    with pytest.raises(CourseError, match="Precision 'int3' is not one of"):
        export.to_onnx(tiny_folder, tmp_path / "x", "int3")
    with pytest.raises(CourseError, match="The conversion of .* to fp32 failed"):
        export.to_onnx(tmp_path / "nothing", tmp_path / "x", "fp32")


def test_lora_trains_with_the_same_trainer(tiny):
    from peft import LoraConfig, get_peft_model

    model, tokenizer = tiny
    before = model.model.layers[0].mlp.up_proj.weight.clone()
    lora = get_peft_model(model, LoraConfig(r=2, target_modules="all-linear", task_type="CAUSAL_LM"))
    history = training.train(
        lora, tokenizer, examples(tokenizer), num_train_epochs=20, learning_rate=1e-2, logging_steps=1
    )
    assert history["loss"].tail(4).mean() < history["loss"].head(4).mean()
    assert torch.equal(model.model.layers[0].mlp.up_proj.base_layer.weight, before)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="other C libraries decide for themselves")
def test_freed_memory_is_given_back():
    process = psutil.Process()
    pieces = [bytearray(b"x" * 100_000) for _ in range(3000)]
    full = process.memory_info().rss
    del pieces[:-1]  # the last one keeps the heap from shrinking by itself
    measure.give_back()
    assert full - process.memory_info().rss > 200e6


def test_peak_memory_of_a_fresh_process_is_its_own():
    ballast = bytearray(random.Random(0).randbytes(10**6)) * 600  # this process is large
    with measure.FreshProcess() as fresh:
        small = fresh.peak_memory()
        assert fresh.call(json.loads, "[1]") == [1]
        with pytest.raises(ValueError):
            fresh.call(json.loads, "[")
    assert small < measure.peak_memory() - len(ballast) / 2


def test_paired_test_by_hand():
    ours = [True] * 10 + [False] * 4 + [True] * 1
    theirs = [True] * 10 + [True] * 4 + [False] * 1
    found = evaluate.paired_test(ours, theirs)
    assert (found["only_ours"], found["only_theirs"]) == (1, 4)
    assert found["p"] == pytest.approx(2 * (1 + 5) / 2**5)  # at most 1 of 5 coins, either way
    assert evaluate.paired_test(ours, ours)["p"] == 1.0


def test_macro_f1_counts_rare_classes_as_much():
    task_like = [{"answer": {"kind": kind, "word": None}} for kind in ["warm"] * 9 + ["cold"]]
    always_warm = [tasks.Reading({"kind": "warm", "word": None})] * 9 + [tasks.Reading(None, "no JSON")]
    pairs = evaluate.outcomes("kind", task_like, always_warm)
    assert pairs["said"].iloc[-1] == "(unreadable)"
    found = evaluate.macro_f1(pairs)
    assert found["f1"] == pytest.approx(0.5)  # 1 for warm, 0 for cold
    assert found["low"] <= found["f1"] <= found["high"] <= 1
    (mistake,) = evaluate.confusions(pairs).to_dict("records")
    assert mistake == {"truth": "cold", "said": "(unreadable)", "times": 1}
    assert set(evaluate.outcomes("word", task_like[:1], always_warm[:1]).iloc[0]) == {"null"}


def test_the_head_is_not_copied_per_message(tiny):
    """It would be where its input is not contiguous and no gradient is wanted."""
    model, tokenizer = tiny
    model.requires_grad_(False)
    seen = []
    model.lm_head.register_forward_hook(lambda head, inputs, out: seen.append(inputs[0].is_contiguous()))
    evaluate.generate(model, tokenizer, CHATS, 4, label=None)
    assert len(seen) >= 4 and all(seen)
    assert not model.lm_head._forward_pre_hooks
