#!/usr/bin/env python3
"""Summarises failures: bench/failures_summary.py bench/record/<date>-<machine>-failures > its README.md

Exit code 1 where a test failed.
"""

import re
import sys
from pathlib import Path

folder = Path(sys.argv[1])
failed = []
print("# Failures, in full once\n\n`bash bench/failures.sh`; the machine: `machine.txt`. Every look-up of "
      "every test was compared with\nits record and every admitted query found in the books, or the "
      "test had failed.\n")
print("| test | what was seen | panics | passed |\n|---|---|---|---|")
for path in sorted(folder.glob("*.txt")):
    text = path.read_text(errors="replace")
    ended = re.search(r"^ended: (\d+)$", text, re.M)
    if not ended:
        continue
    passed = ended.group(1) == "0"
    if not passed:
        failed.append(path.stem)
    seen = re.findall(r"^(?:record: |test .* \.\.\. record: )(.*)$", text, re.M)
    skipped = re.findall(r"^(skipped.*)$", text, re.M)
    words = "; ".join(skipped + seen) or "as its name says"
    panics = len(re.findall(r"^thread '.*panicked", text, re.M))
    how = "**NO**" if not passed else "yes" if seen or not skipped else "skipped"
    print(f"| `{path.stem}` | {words} | {panics} | {how} |")
print(f"\nFailed: {', '.join(failed) if failed else 'none'}.")
sys.exit(1 if failed else 0)
