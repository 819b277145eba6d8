"""tensafe.scan as a user calls it. The rules themselves are tested in Rust, over the same corpora."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import tensafe

ROOT = Path(__file__).resolve().parent.parent / "pickles"
PAYLOAD = b"cos\nsystem\n(S'touch TENSAFE-MARKER-MUST-NOT-EXIST'\ntR."


def test_a_payload_is_an_error_with_its_place_and_name(tmp_path: Path) -> None:
    path = tmp_path / "model.pkl"
    path.write_bytes(PAYLOAD)
    report = tensafe.scan(path)
    (file,) = report.files
    assert (file.path, file.verdict) == (str(path), "findings")
    finding = next(f for f in file.findings if f.symbol == "os.system")
    assert (finding.level, finding.offset) == ("error", 0)
    assert report.reaches("error") and not report.is_clean
    with pytest.raises(ValueError, match="level"):
        report.reaches("grave")


def test_bytes_are_scanned_as_a_file_is(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(PAYLOAD)
    from_file = tensafe.scan(tmp_path / "x").findings
    for data in (PAYLOAD, bytearray(PAYLOAD), memoryview(PAYLOAD)):
        assert tensafe.scan(data).findings == from_file


def test_what_cannot_be_judged_is_never_clean(tmp_path: Path) -> None:
    (tmp_path / "a.bin").write_bytes(b"7z\xbc\xaf\x27\x1c" + bytes(40))
    report = tensafe.scan([tmp_path / "a.bin"])
    assert report.files[0].inconclusive and not report.is_clean
    missing = tensafe.scan(tmp_path / "missing")
    assert missing.errors and not missing.is_clean


def test_a_policy_allows_with_a_reason(tmp_path: Path) -> None:
    (tmp_path / "model.pkl").write_bytes(PAYLOAD)
    policy = tmp_path / "policy.toml"
    policy.write_text('[[allow]]\nsymbol = "os.system"\nreason = "a test"\n')
    report = tensafe.scan(tmp_path / "model.pkl", policy=policy)
    assert any(f.allowed == "a test" for f in report.findings)
    policy.write_text("[[allow]]\nnonsense = 1\n")
    with pytest.raises(tensafe.UsageError):
        tensafe.scan(tmp_path, policy=policy)


def test_no_hostile_file_is_clean_and_no_benign_one_is_an_error() -> None:
    hostile = json.loads((ROOT / "hostile.json").read_text())
    report = tensafe.scan(ROOT / "hostile")
    clean = {Path(file.path).name for file in report.files if file.verdict == "clean"}
    # Odd files have only to be survived; this one costs what it weighs.
    assert {name for name in clean if hostile[name]["verdict"] != "odd"} <= {"dos_unicode_escapes.pkl"}
    assert len(report.files) == len(hostile)
    assert not tensafe.scan(ROOT / "benign").reaches("error")


def test_documents_are_json(tmp_path: Path) -> None:
    (tmp_path / "model.pkl").write_bytes(PAYLOAD)
    sarif = json.loads(tensafe.scan_to("sarif", tmp_path))
    assert sarif["version"] == "2.1.0" and sarif["runs"][0]["results"]
    assert json.loads(tensafe.scan_to("cyclonedx", tmp_path))["bomFormat"] == "CycloneDX"
    assert json.loads(tensafe.scan_to("json", tmp_path))["schema"] == "tensafe.scan/1"
    with pytest.raises(ValueError):
        tensafe.scan_to("xml", tmp_path)
