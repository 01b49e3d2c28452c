import pytest
from lessons import CHATS

from slmops_lab import measure
from slmops_lab.deployment import export, runtime
from slmops_lab.errors import CourseError


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


def test_race_takes_turns_in_processes_of_their_own(tiny_onnx):
    answers, memory = runtime.race({"a": ("genai", tiny_onnx), "b": ("genai", tiny_onnx)}, CHATS, warm_up=1)
    turns = [answer["system"].tolist() for _, answer in answers.groupby("message")]
    assert turns == [["a", "b"], ["b", "a"], ["a", "b"]], "each is first as often as the others"
    assert (answers["ms"] > 0).all() and (answers.groupby("message")["text"].nunique() == 1).all()
    assert set(memory) == {"a", "b"} and min(memory.values()) > 1e7
    assert runtime._here is None, "the runtimes are not in this process"


def test_runtime_and_precision_that_do_not_exist(tiny_folder, tmp_path):
    with pytest.raises(CourseError, match="There is no runtime 'tflite'"):
        runtime.open_runtime("tflite", tiny_folder)
    with pytest.raises(CourseError, match="it has no genai_config.json"):
        runtime.open_runtime("genai", tmp_path)
    with pytest.raises(CourseError, match="Precision 'int3' is not one of"):
        export.to_onnx(tiny_folder, tmp_path / "x", "int3")
    with pytest.raises(CourseError, match="'awq' is not one of"):
        export.to_onnx(tiny_folder, tmp_path / "x", "int4", method="awq")
