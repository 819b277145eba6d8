"""Lists the rules of docs/spec.md that no test and no file of the corpus cites, and the tests that
docs/threat-model.md cites and that are not there; fails if there is one.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def main() -> int:
    rules = re.findall(r"^### (S-\d+) (.*)$", (ROOT / "docs" / "spec.md").read_text(), re.MULTILINE)
    constants = dict(
        re.findall(
            r"pub const (\w+): Self = Self\((\d+)\)", (ROOT / "crates/tensafe-format/src/rule.rs").read_text()
        )
    )
    cited = []
    for path in sorted(ROOT.glob("crates/*/**/*.rs")) + sorted(ROOT.glob("tests/**/*")):
        # Pickles cite no rule, and are no text.
        if path.suffix not in {".rs", ".py", ".txt"} or "pickles" in path.parts:
            continue
        text = path.read_text()
        inside = "tests" in path.parts or path.name == "tests.rs"
        # The tests of a module stand at its end.
        cited.append(text if inside else text.partition("#[cfg(test)]")[2])
    text = "\n".join(cited)
    missing = []
    for rule, title in rules:
        names = [name for name, number in constants.items() if int(number) == int(rule[2:])]
        if rule not in text and not any(f"Rule::{name}" in text for name in names):
            missing.append(f"{rule} {title}")
    print(f"{len(rules)} rules, {len(rules) - len(missing)} cited by a test or a file of the corpus")
    for line in missing:
        print(f"error: no test cites {line}", file=sys.stderr)
    gone = claims_without_their_test(text)
    for name in gone:
        print(f"error: docs/threat-model.md cites `{name}`, which is no test", file=sys.stderr)
    return 1 if missing or gone else 0


def claims_without_their_test(tests: str) -> list[str]:
    """Names of tests that the threat model cites: three words or more, joined by underscores."""
    document = (ROOT / "docs" / "threat-model.md").read_text()
    claims = document.partition("## Claims, and the tests")[2].partition("## Claims without")[0]
    cited = set(re.findall(r"`([a-z0-9]+(?:_[a-z0-9]+){2,})`", claims))
    targets = {path.stem for path in (ROOT / "fuzz" / "fuzz_targets").glob("*.rs")}
    there = set(re.findall(r"(?:fn|def) (\w+)\(", tests)) | targets
    return sorted(cited - there)


if __name__ == "__main__":
    sys.exit(main())
