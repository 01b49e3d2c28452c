"""An OpenAI-compatible endpoint over ONNX Runtime GenAI."""
