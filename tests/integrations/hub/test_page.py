"""The page docs/integrations/huggingface.md."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

for package in ("torch", "transformers", "diffusers", "accelerate", "peft", "huggingface_hub"):
    pytest.importorskip(package)
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from page import run_page  # noqa: E402


def test_the_page_is_right(tmp_path):
    printed = run_page("huggingface", tmp_path)
    assert any(text.count("(16, 32)") == 2 for text in printed)
