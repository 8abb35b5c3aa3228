#!/usr/bin/env python3
"""Summarises a record: bench/summary.py bench/record/<date>-<machine> > its README.md

Reads kernel.json and what the other steps printed; steps that were left out are left out here.
"""

import json
import re
import sys
from pathlib import Path

folder = Path(sys.argv[1])
kernel = json.loads((folder / "kernel.json").read_text())


def printed(name, pattern):
    """What a step printed where `pattern` has its group, or None."""
    path = folder / f"{name}.txt"
    found = re.search(pattern, path.read_text(), re.M) if path.exists() else None
    return found and found.group(1)


def seconds(name):
    """Wall time of a step."""
    minutes, rest = (printed(name, rf"^real\t(\d+m)[\d.]+s$"), printed(name, r"^real\t\d+m([\d.]+)s$"))
    return minutes and 60 * int(minutes[:-1]) + float(rest)


def row(what, measured, file):
    if measured is not None:
        print(f"| {what} | {measured} | `{file}` |")


machine, floors, client = kernel["machine"], kernel["floors"], kernel["client"]
print(f"# {kernel['date'][:10]}, {machine['cpu']}, {machine['logical_cpus']} cores\n")
print(f"`bench/measure.sh` at commit {kernel['commit']}; load {machine['load']} before the kernels.")
if "EPYC" not in machine["cpu"]:
    print("This is not the reference machine (AMD EPYC Zen 4) of the targets.")
print("**Not measured on a GPU**: none was at hand.\n")

print("The best of the run decides; medians of whole answers stand beside.\n")
print("| target (issue 3) | wanted | best | median | |\n|---|---|---|---|---|")
targets = [(t["what"], t["wanted"], t["measured"], t["median"], t["met"]) for t in kernel["targets"]]
build, peak = seconds("build-standard"), printed("build-standard", r"^peak memory (\d+) MiB")
small, shards = seconds("build-small"), printed("build-small", r"--shards (\d+)")
targets.append(("building a standard shard, s", "at most 8", build, None, build and build <= 8))
targets.append(("its peak memory, MiB", "at most 1536", peak, None, peak and int(peak) <= 1536))
if shards == "10000":
    targets.append(("building 10 000 small shards, s", "at most 240", small, None, small <= 240))
for what, wanted, measured, median, met in targets:
    verdict = "not measured" if met is None else "met" if met else "**not met**"
    best, median = ["-" if n is None else f"{float(n):.4g}" for n in (measured, median)]
    print(f"| {what} | {wanted} | {best} | {median} | {verdict} |")

print("\n| what | measured | file |\n|---|---|---|")
two = floors["read_shard_ms_2"]
row("reading the standard shard (242 MB): one core, two", f"{floors['read_shard_ms']:.1f} ms, "
    + (f"{two:.1f} ms" if two else "-"), "kernel.json")
for name, rate in floors["peaks_g_per_s"].items():
    row(f"peak of `{name}`, one core", f"{rate:.2f} G/s", "kernel.json")
for answer in kernel["answers"]:
    if answer["batch"] in (1, 16) and answer["threads"] in (1, 2):
        shares = [answer["scan_share"], answer["pack_share"]]
        scan, pack = [f" ({share:.0%} of peak)" if share else "" for share in shares]
        row(f"{answer['engine']}, threads {answer['threads']}, batch {answer['batch']}: a query, scan, pack",
            f"{answer['ms_per_query']:.2f} ms, {answer['scan_ms']:.2f} ms{scan}, "
            f"{answer['pack_ms']:.2f} ms{pack}", "kernel.json")
row("client: secret with key bundle, encrypting, decoding", f"{client['key_bundle_ms']:.2f} ms, "
    f"{client['encrypt_ms']:.2f} ms, {client['decode_ms']:.2f} ms", "kernel.json")
memory = kernel["memory_batch_32_mb"]
row("memory of a batch of 32, beyond the shard", memory and f"{memory:.1f} MB", "kernel.json")
for cold in kernel["cold"]:
    what = f"answer, threads {cold['threads']}, batch {cold['batch']}" if cold["batch"] else cold["what"]
    row(f"not in the page cache: {what}", f"{cold['ms']:.0f} ms ({cold['times_plain_read']:.2f} times "
        "the plain read)", "kernel.json")
row("building a standard shard of 2^20 records", build and f"{build:.1f} s, {peak} MiB peak",
    "build-standard.txt")
lookups, alone = printed("demo-standard", r"in all +(\d+ ms)"), printed("demo-standard", r", ([\d.]+ ms) each\n\n")
row("256 look-ups in one call over QUIC, client and server on the same cores",
    lookups and f"{lookups}; answering alone {alone} each", "demo-standard.txt")
row(f"{shards} shards of 100 records: built",
    small and f"{small:.0f} s, {printed('build-small', r'^peak memory (.*)')} peak", "build-small.txt")
verify = seconds("verify-small")
row("the same: verified, every byte", verify and f"{verify:.1f} s", "verify-small.txt")
opened, resident = printed("serve-small", r"serve: (\S+) s"), printed("serve-small", r"VmRSS:\s+(\d+)")
row("the same: opened, to the server's first line",
    opened and f"{float(opened):.2f} s, {int(resident) / 1000:.0f} MB resident", "serve-small.txt")
found, lookup = printed("lookup-small", r"^(\d+)$"), seconds("lookup-small")
row("the same: 2 000 random keys looked up, client process included",
    lookup and f"{lookup:.2f} s, {found} found", "lookup-small.txt")
