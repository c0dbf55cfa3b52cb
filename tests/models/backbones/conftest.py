from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[3]
GOLDEN = (ROOT / "tests" / "golden", ROOT.parent / "shared" / "golden")
WEIGHTS = ROOT.parent / "shared" / "weights"


@pytest.fixture(scope="session")
def golden() -> Callable[[str], dict[str, np.ndarray]]:
    """Load a recorded case by file name, from the project's copies or the shared folder."""

    def load(name: str) -> dict[str, np.ndarray]:
        for folder in GOLDEN:
            for file in sorted(folder.rglob(f"{name}.npz")) if folder.is_dir() else ():
                with np.load(file) as content:
                    return dict(content)
        pytest.skip(f"{name}.npz lies in neither {GOLDEN[0]} nor {GOLDEN[1]}")

    return load


@pytest.fixture(scope="session")
def shared_weights() -> Path:
    if not (WEIGHTS / "lit_mini.safetensors").is_file():
        pytest.skip(f"{WEIGHTS} holds no lit_mini.safetensors")
    return WEIGHTS


@pytest.fixture(scope="session")
def tiny_json(tmp_path_factory: pytest.TempPathFactory) -> str:
    """An open_clip description of a very small CLIP: ViT with 4 patches, context 16."""
    file = tmp_path_factory.mktemp("architecture") / "tiny.json"
    vision = {"image_size": 16, "patch_size": 8, "width": 32, "head_width": 16, "layers": 1}
    text = {"context_length": 16, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1}
    file.write_text(json.dumps({"embed_dim": 24, "vision_cfg": vision, "text_cfg": text}))
    return str(file)
