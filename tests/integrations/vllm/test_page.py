"""The page of vLLM says what works."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from page import PAGES, run_page


def test_page(tmp_path: Path) -> None:
    *_, printed = run_page("vllm", tmp_path)
    assert "[" in printed


def test_the_command_is_one_of_vllm() -> None:
    from tensafe.integrations._vllm_loader import Options
    from vllm.engine.arg_utils import EngineArgs
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    page = (PAGES / "vllm.md").read_text()
    (line,) = [line for line in page.splitlines() if line.startswith("vllm serve ")]
    _, _, model, *arguments = shlex.split(line)
    parser = EngineArgs.add_cli_args(FlexibleArgumentParser())
    parsed = parser.parse_args(["--model", model, *arguments])
    assert parsed.load_format == "tensafe"
    assert Options.of(parsed.model_loader_extra_config).budget == "4GiB"
    for option in Options.__dataclass_fields__:
        assert f"| `{option}` |" in page
