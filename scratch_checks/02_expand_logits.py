"""Where 01 fails with a shape: a copy of the model whose logits have as many rows as the step has tokens.

python 02_expand_logits.py FOLDER OUT: the last token's logits, computed once, are repeated. Then: 01 on OUT.
"""
import shutil
import sys
from pathlib import Path

import onnx

folder, out = map(Path, sys.argv[1:3])
shutil.copytree(folder, out)
model = onnx.load(out / "model.onnx", load_external_data=False)
graph = model.graph
maker = next(node for node in graph.node if "logits" in node.output)
maker.output[list(maker.output).index("logits")] = "logits/own"
for node in graph.node:  # whoever else reads them
    node.input[:] = ["logits/own" if name == "logits" else name for name in node.input]
make = onnx.helper.make_node
graph.node.extend(
    [
        make("Shape", ["input_ids"], ["logits/given"]),  # batch, tokens
        make("Constant", [], ["logits/one"], value_ints=[1]),
        make("Concat", ["logits/given", "logits/one"], ["logits/shape"], axis=0),
        make("Expand", ["logits/own", "logits/shape"], ["logits"]),  # (batch, 1, words) -> (batch, tokens, words)
    ]
)
value = next(value for value in graph.output if value.name == "logits")
print("declared before:", value.type.tensor_type.shape.dim)
value.type.tensor_type.shape.dim[1].Clear()
value.type.tensor_type.shape.dim[1].dim_param = "sequence_length"
onnx.save(model, out / "model.onnx")
print("written", out)
