"""The documents of a scan against the schemas of SARIF and CycloneDX, over both corpora."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import tensafe

sarif = pytest.importorskip("pydantic_sarif.model")
validation = pytest.importorskip("cyclonedx.validation.json")
schema = pytest.importorskip("cyclonedx.schema")

ROOT = Path(__file__).resolve().parent.parent / "pickles"


def test_the_models_of_the_schemas_refuse_what_is_wrong() -> None:
    report = sarif.StaticAnalysisResultsFormatSarifVersion210JsonSchema
    for wrong in (
        {"version": "2.1.0"},
        {"version": "9", "runs": []},
        {"version": "2.1.0", "runs": [{"tool": 1}]},
    ):
        with pytest.raises(ValueError):
            report.model_validate_json(json.dumps(wrong))


@pytest.mark.parametrize("corpus", ["hostile", "benign"])
def test_sarif_keeps_its_schema(corpus: str) -> None:
    text = tensafe.scan_to("sarif", ROOT / corpus)
    log = sarif.StaticAnalysisResultsFormatSarifVersion210JsonSchema.model_validate_json(text)
    rules = {rule.id for rule in log.runs[0].tool.driver.rules}
    assert {result.ruleId for result in log.runs[0].results} <= rules
    assert len(log.runs[0].results) > (1000 if corpus == "hostile" else 0)


@pytest.mark.parametrize("corpus", ["hostile", "benign"])
def test_cyclonedx_keeps_its_schema(corpus: str) -> None:
    text = tensafe.scan_to("cyclonedx", ROOT / corpus)
    document: dict[str, Any] = json.loads(text)
    version = getattr(schema.SchemaVersion, "V" + document["specVersion"].replace(".", "_"))
    assert validation.JsonStrictValidator(version).validate_str(text) is None
