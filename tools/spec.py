"""Lists the rules of docs/spec.md that no test and no file of the corpus cites, and fails if there is one."""

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
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
