"""torch to ONNX, parity, Triton configs, repository lint, assembling a release."""
