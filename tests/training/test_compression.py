import json

import hypothesis
import onnx
import pytest
import torch
from lessons import CHATS, examples

from slmops_lab.deployment import export, runtime
from slmops_lab.errors import CourseError
from slmops_lab.evaluation import generation
from slmops_lab.task import encoding, schema
from slmops_lab.training import compression, trainer


def test_kept_layers_are_the_teachers(tiny):
    model, _ = tiny
    small = compression.keep_layers(model, [0, 3])
    assert small.config.num_hidden_layers == 2 and model.config.num_hidden_layers == 4
    assert torch.equal(small.model.layers[1].mlp.up_proj.weight, model.model.layers[3].mlp.up_proj.weight)
    assert [layer.self_attn.layer_idx for layer in small.model.layers] == [0, 1]
    assert small.lm_head.weight is small.model.embed_tokens.weight
    small.model.layers[0].mlp.up_proj.weight.data.zero_()
    assert model.model.layers[0].mlp.up_proj.weight.abs().sum() > 0, "a copy, not a view"


def test_a_student_can_change_its_attention_kernel_alone(tiny):
    model, _ = tiny
    before = model.config._attn_implementation
    small = compression.keep_layers(model, [0, 3])
    small.set_attn_implementation("eager")
    assert {layer.self_attn.config._attn_implementation for layer in small.model.layers} == {"eager"}
    assert {layer.self_attn.config._attn_implementation for layer in model.model.layers} == {before} != {"eager"}


def test_keeping_all_layers_changes_nothing(tiny):
    model, tokenizer = tiny
    ids = torch.tensor([tokenizer("hello there").input_ids])
    assert torch.equal(compression.keep_layers(model, [0, 1, 2, 3])(ids).logits, model(ids).logits)


@pytest.mark.parametrize("keep", [[], [0, 0], [4], [-1]])
def test_layers_that_are_not_there(tiny, keep):
    with pytest.raises(CourseError, match="of a model with 4 layers"):
        compression.keep_layers(tiny[0], keep)


def test_spread():
    assert compression.spread(30, 4) == [0, 10, 19, 29]
    assert compression.spread(5, 5) == [0, 1, 2, 3, 4]
    for count in (31, 1):
        with pytest.raises(CourseError, match=f"A student of {count} layers cannot be cut from 30: take 2 to 30"):
            compression.spread(30, count)


def test_spread_leaves_the_lower_layers_together():
    assert compression.spread(30, 10, together=5) == [0, 1, 2, 3, 4, 9, 14, 19, 24, 29]
    assert compression.spread(4, 2, together=1) == [0, 3] and compression.spread(6, 6, together=3) == [0, 1, 2, 3, 4, 5]
    for total in range(2, 33):
        for count in range(2, total + 1):
            for together in range(1, count):
                kept = compression.spread(total, count, together)
                assert len(set(kept)) == count and kept == sorted(kept) and kept[-1] == total - 1
                assert kept[:together] == list(range(together))
    for together in (0, 4):
        with pytest.raises(ValueError, match="cannot stay together"):
            compression.spread(30, 4, together)


TEXTS = ["where is my parcel TT-4711?", "the café's naïve 🙂 refund"]


def test_a_smaller_vocabulary_reads_and_answers_the_same(tiny):
    model, tokenizer = tiny
    small, words, ids = compression.keep_vocabulary(model, tokenizer, TEXTS, first=600)
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
    _, words, _ = compression.keep_vocabulary(*tiny, TEXTS, first=600)

    @hypothesis.given(hypothesis.strategies.text())
    def read_back(text):
        # some bytes of the rarest alphabets are missing in the model's own vocabulary, too
        assert words.decode(words(text).input_ids) == tokenizer.decode(tokenizer(text).input_ids)

    read_back()


def test_a_smaller_vocabulary_survives_saving_and_export(tiny, tmp_path):
    small, words, _ = compression.keep_vocabulary(*tiny, [t for chat in CHATS for t in [chat[0]["content"]]], first=600)
    small.save_pretrained(tmp_path / "hf")
    words.save_pretrained(tmp_path / "hf")
    served = runtime.open_runtime("genai", export.to_onnx(tmp_path / "hf", tmp_path / "onnx", "fp32"))
    for chat in CHATS:
        assert served.generate(chat, 8) == generation.generate(small, words, [chat], 8, label=None)[0]
    served.close()


PHRASES = ['{"kind":"warm', '","word":"', '"}', '","word":null}', "a"]


def test_phrases_are_one_token_each_and_the_text_is_the_same(tiny):
    model, tokenizer = tiny
    longer, words = compression.add_phrases(model, tokenizer, PHRASES)
    already = [text for text in PHRASES if len(tokenizer(text).input_ids) == 1]
    assert len(already) == 2, "which are left alone"
    assert len(words) == longer.config.vocab_size == len(tokenizer) + len(PHRASES) - 2
    assert model.config.vocab_size == len(tokenizer) and longer.lm_head.weight is longer.model.embed_tokens.weight
    text = '{"kind":"warm","word":"red"}'
    ids = words(text).input_ids
    assert words.convert_ids_to_tokens(ids) == [*PHRASES[:2], "red", '"}'] and words.decode(ids) == text
    assert words("no JSON, 你好").input_ids == tokenizer("no JSON, 你好").input_ids
    assert not {token.content for token in words.added_tokens_decoder.values() if token.special} & set(PHRASES)
    parts = tokenizer(PHRASES[0]).input_ids
    rows, row = model.model.embed_tokens.weight[parts], longer.model.embed_tokens.weight[len(tokenizer)]
    assert torch.nn.functional.cosine_similarity(row, rows.mean(0), dim=0) > 0.999
    assert row.norm().item() == pytest.approx(rows.norm(dim=1).mean().item(), rel=1e-5)
    again, same = compression.add_phrases(longer, words, PHRASES)
    assert len(same) == len(words) and again.config.vocab_size == longer.config.vocab_size, "twice is once"


def test_phrases_survive_a_smaller_vocabulary(tiny):
    longer, words = compression.add_phrases(*tiny, PHRASES)
    text = '{"kind":"warm","word":"parcel"}'
    small, few, ids = compression.keep_vocabulary(longer, words, [*TEXTS, text], first=600)
    assert few.decode(few(text).input_ids) == text and len(few(text).input_ids) == len(words(text).input_ids)
    assert ids[few(text).input_ids].tolist() == words(text).input_ids and small.config.vocab_size == len(ids)


@pytest.mark.parametrize("guided", [False, True])
def test_phrases_are_written_by_a_served_model(tiny, colours, tmp_path, guided):
    """Trained to write two answers by heart: what is served says the same, and in as few tokens."""
    task = schema.load(colours)
    longer, words = compression.add_phrases(*tiny, task.phrases(values=True))
    answers = {"I like red": {"kind": "warm", "word": "red"}, "hm": {"kind": "cold", "word": None}}
    lessons = [encoding.encode(words, task.messages(text), task.write(answer)) for text, answer in answers.items()]
    how = {"num_train_epochs": 60, "learning_rate": 1e-2, "train_embeddings": True, "label": None}
    trainer.train(longer, words, lessons, **how)
    longer.save_pretrained(tmp_path / "hf")
    words.save_pretrained(tmp_path / "hf")
    served = runtime.open_runtime("genai", export.to_onnx(tmp_path / "hf", tmp_path / "onnx", "fp32"))
    for text, answer in answers.items():
        guidance = ("lark_grammar", task.grammar(text)) if guided else None
        answering = served.stream(task.messages(text), 16, guidance=guidance)
        said = "".join(answering)
        assert task.read(said).answer == answer
        assert said == generation.generate(longer, words, [task.messages(text)], 16, label=None)[0]
        assert answering.answer_tokens <= 6, "not the twenty and more of its letters"
    served.close()


def test_a_vocabulary_that_is_not_made_of_merges(tiny):
    class WordPiece:
        class backend_tokenizer:
            to_str = staticmethod(lambda: json.dumps({"model": {"type": "WordPiece"}}))

    with pytest.raises(CourseError, match="A WordPiece vocabulary cannot be cut here"):
        compression.keep_vocabulary(tiny[0], WordPiece(), TEXTS)


def by_hand(weight, block=32):
    """The definition, one block at a time: the largest number goes to -8, the others to the nearest multiple."""
    rows = []
    for row in weight:
        pieces = []
        for piece in row.split(block):
            low, high = min(0, piece.min()), max(0, piece.max())
            scale = (low if -low > high else high) / -8 or torch.ones(())
            pieces.append((piece / scale).round().clamp(-8, 7) * scale)
        rows.append(torch.cat(pieces))
    return torch.stack(rows)


NUMBERS = hypothesis.strategies.one_of(
    hypothesis.strategies.floats(-1e3, 1e3, width=32, allow_subnormal=False),
    hypothesis.strategies.integers(-20, 20).map(lambda n: n * 7 / 2),  # ties
    hypothesis.strategies.just(0.0),
)


@hypothesis.settings(deadline=None)
@hypothesis.given(
    hypothesis.strategies.data(), hypothesis.strategies.integers(1, 3), hypothesis.strategies.integers(1, 70)
)
def test_snapping_is_its_definition_to_the_last_bit(data, rows, columns):
    numbers = hypothesis.strategies.lists(NUMBERS, min_size=rows * columns, max_size=rows * columns)
    weight = torch.tensor(data.draw(numbers)).reshape(rows, columns)
    snapped = compression.snap(weight)
    assert snapped.shape == weight.shape and torch.equal(snapped, by_hand(weight))


def test_a_tie_is_rounded_as_a_division_rounds_it():
    tie = torch.tensor([[-112.0, 91.0, -91.0, 0.0]])  # the scale is 14, so these are -8, 6.5, -6.5 and 0
    assert compression.snap(tie).tolist() == [[-112.0, 84.0, -84.0, 0.0]]


@pytest.mark.parametrize("factor", [1, 7, 0.1])
def test_snapping_many_numbers(factor):
    torch.manual_seed(0)
    many = torch.cat([torch.randn(200, 96), torch.randint(-20, 20, (200, 96))]) * factor  # the latter full of ties
    assert torch.equal(compression.snap(many), by_hand(many))
    assert max(len(block.unique()) for block in compression.snap(many).reshape(-1, 32)) <= 16


def test_the_gradient_goes_straight_through():
    weight = torch.tensor([[-8.0, 7.9, 0.2, 0.0]], requires_grad=True)
    gradient = torch.tensor([[1.0, 2.0, 3.0, 4.0]])
    (compression._Snapped()(weight) * gradient).sum().backward()
    assert torch.equal(weight.grad, gradient), "also where 7.9 is cut to 7"


def test_snapped_weights_stay_where_they_are():
    torch.manual_seed(0)
    snapped = compression.snap(torch.randn(6, 80))
    assert torch.allclose(compression.snap(snapped), snapped, atol=1e-6)


def test_a_vocabulary_head_of_its_own_is_rounded_as_well(tiny):
    model, _ = tiny
    model.config.tie_word_embeddings = False
    model.lm_head.weight = torch.nn.Parameter(torch.randn_like(model.lm_head.weight))
    with compression.four_bits(model):
        pass
    for table in (model.get_input_embeddings().weight, model.lm_head.weight):
        assert torch.allclose(compression.snap(table.detach()), table, atol=1e-5)


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
    with compression.four_bits(model):
        trainer.train(model, tokenizer, examples(tokenizer), num_train_epochs=2, learning_rate=1e-2)
    after = model.model.layers[0].mlp.up_proj.weight.detach()
    assert not torch.allclose(before, after, atol=1e-3), "it learned"
    assert torch.allclose(compression.snap(after), after, atol=1e-6)
    model.save_pretrained(tmp_path / "hf")
    tokenizer.save_pretrained(tmp_path / "hf")
    folder = export.to_onnx(tmp_path / "hf", tmp_path / "int4", "int4")
    assert torch.allclose(stored_int4(folder, "layers.0/mlp/up_proj"), after, atol=1e-6)


def test_changed_matrices_are_those_of_the_layers_of_a_copy(tiny):
    model, _ = tiny
    before = {name: weight.clone() for name, weight in model.named_parameters()}
    changed = compression.change_matrices(model, lambda matrix: 2 * matrix)
    for name, weight in changed.named_parameters():
        factor = 2 if "_proj" in name else 1
        assert torch.equal(weight, factor * before[name]), name
    assert all(torch.equal(weight, before[name]) for name, weight in model.named_parameters())
