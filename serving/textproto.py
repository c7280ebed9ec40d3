"""How a model's config becomes config.pbtxt: the one writer that rendering and activation share."""

from __future__ import annotations

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2 as pb

HEADER = "# Rendered from core/tensors.py by `python -m export.config`; do not edit.\n"


def config_text(config: pb.ModelConfig) -> str:
    """Protobuf text below a header line. Map entries come sorted, so equal configs give equal bytes."""
    return HEADER + text_format.MessageToString(config)
