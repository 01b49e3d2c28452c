import json

import hypothesis
import onnx
import pytest
import torch
from lessons import CHATS, examples

from slmops_lab.deployment import export, runtime
from slmops_lab.errors import CourseError
from slmops_lab.evaluation import generation
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


def test_a_vocabulary_that_is_not_made_of_merges(tiny):
    class WordPiece:
        class backend_tokenizer:
            to_str = staticmethod(lambda: json.dumps({"model": {"type": "WordPiece"}}))

    with pytest.raises(CourseError, match="A WordPiece vocabulary cannot be cut here"):
        compression.keep_vocabulary(tiny[0], WordPiece(), TEXTS)


def test_snapped_weights_stay_where_they_are():
    torch.manual_seed(0)
    weight = torch.randn(6, 80)
    weight[0, :32] = 0
    snapped = compression.snap(weight)
    assert torch.allclose(compression.snap(snapped), snapped, atol=1e-6)
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
    with compression.four_bits(model):
        trainer.train(model, tokenizer, examples(tokenizer), num_train_epochs=2, learning_rate=1e-2)
    after = model.model.layers[0].mlp.up_proj.weight.detach()
    assert not torch.allclose(before, after, atol=1e-3), "it learned"
    assert torch.allclose(compression.snap(after), after, atol=1e-6)
    model.save_pretrained(tmp_path / "hf")
    tokenizer.save_pretrained(tmp_path / "hf")
    folder = export.to_onnx(tmp_path / "hf", tmp_path / "int4", "int4")
    assert torch.allclose(stored_int4(folder, "layers.0/mlp/up_proj"), after, atol=1e-6)
