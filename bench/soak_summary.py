#!/usr/bin/env python3
"""Judges a long run: bench/soak_summary.py bench/record/<date>-<machine>-soak > its README.md

Exit code 1 where something is not as it has to be.
"""

import csv
import json
import re
import sys
from pathlib import Path
from statistics import median

# Growth of a median from an earlier quarter of a phase to the last one that still is flat.
MEMORY_SHARE_MAX, MEMORY_KIB_MAX = 0.02, 8192
FILES_MAX = 2

folder = Path(sys.argv[1])
samples = list(csv.DictReader((folder / "samples.csv").open()))
log = (folder / "soak-server.txt").read_text()
failed = False


def judge(what, good, seen):
    global failed
    failed |= not good
    print(f"| {what} | {seen} | {'yes' if good else '**NO**'} |")


def quarter(phase, number, column):
    """The median over a quarter of a phase, the first being 0."""
    rows = [row for row in samples if row["phase"] == phase]
    part = rows[len(rows) * number // 4 : len(rows) * (number + 1) // 4]
    return median(int(row[column]) for row in part) if part else None


def flat(phase, early, column, allowed, scale=1, unit=""):
    """From a quarter, when what is filled once is full, to the last."""
    first, last = quarter(phase, early, column), quarter(phase, 3, column)
    what = f"{phase}: {column} flat from quarter {early + 1} to 4"
    if first is None or last is None:
        return judge(what, False, "too few samples")
    seen = f"{first / scale:.0f} to {last / scale:.0f}{unit}"
    judge(what, last - first <= allowed(first), seen)


def answers(phase, errors_allowed):
    path = folder / f"{phase}.json"
    if not path.exists():
        return judge(f"{phase}: the generator ran", False, f"see `{phase}.txt`")
    report = json.loads(path.read_text())
    for trial in report["trials"]:
        verified, errors = trial["verified"], trial["errors"]
        judge(f"{phase}: no answer wrong", verified["wrong"] == 0 and verified["right"] > 0,
              f"{verified['right']} right, {verified['wrong']} wrong")
        lost = {what: count for what, count in errors.items()
                if not any(what.startswith(allowed) for allowed in errors_allowed)}
        judge(f"{phase}: no query lost", not lost, f"{sum(errors.values())} of {trial['planned']} "
              f"without an answer: {json.dumps(errors)}")
        print(f"| {phase}: rate, answers a second, p99 | {trial['rate']:.0f}, "
              f"{trial['throughput']:.0f}, {trial['latency_ms']['p99']:.0f} ms"
              f"{'; INVALID: ' + trial['invalid'] if trial['invalid'] else ''} | |")


print(f"# A long run\n\n`bash bench/soak.sh`, {(folder / 'capacity.txt').read_text().strip()}; 80% of "
      "it is `steady`, 200% is `flood`. Memory, threads\nand files are medians over a quarter of a "
      "phase (`samples.csv`). The machine: `machine.txt`.\n")
print("| what has to be so | what was seen | is it |\n|---|---|---|")
anon = lambda first: max(MEMORY_KIB_MAX, MEMORY_SHARE_MAX * first)
flat("steady", 0, "anon_kib", anon, 1024, " MiB")
flat("steady", 0, "threads", lambda _: 0)
flat("steady", 0, "files", lambda _: FILES_MAX)
flat("flood", 1, "anon_kib", anon, 1024, " MiB")
flat("flood", 1, "threads", lambda _: 0)
flat("flood", 1, "files", lambda _: FILES_MAX)
answers("steady", [])
# What is refused or late beyond the capacity has a typed reply.
answers("flood", ["OVERLOADED", "DEADLINE", "not sent"])
panics = re.findall(r"panicked.*", log)
judge("no panic", not panics, f"{len(panics)} in the log")
errors = [line for line in log.splitlines() if " ERROR " in line]
judge("no error in the log", not errors, f"{len(errors)} lines")
code = (folder / "exit-code.txt").read_text().strip()
judge("the server leaves when told", code == "0", f"exit code {code}")
peak = max(samples, key=lambda row: int(row["anon_kib"]))
print(f"\nHighest anonymous memory: {int(peak['anon_kib']) / 1024:.0f} MiB, in `{peak['phase']}`; "
      f"{len(samples)} samples.")
sys.exit(1 if failed else 0)
