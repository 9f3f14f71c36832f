from __future__ import annotations

import json

import pytest

from affuse.core import hub
from affuse.core.errors import BadConfig

pytest.importorskip("transformers")
TINY = {
    "model_type": "bert",
    "hidden_size": 8,
    "num_hidden_layers": 1,
    "num_attention_heads": 1,
    "intermediate_size": 8,
    "vocab_size": 30,
}


@pytest.mark.parametrize("described", [TINY, {}])
def test_a_torn_download_and_a_foreign_folder_are_named(described, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(described))
    (tmp_path / "model.safetensors").write_bytes(b"torn")
    with pytest.raises(BadConfig, match="cannot be loaded"):
        hub.load(hub.find(str(tmp_path), {}, "text model"))
