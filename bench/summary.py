#!/usr/bin/env python3
"""Summarises a record: bench/summary.py bench/record/<date>-<machine> > its README.md

Reads what `bench/measure.sh` had measured; what is not there is left out.
"""

import json
import re
import sys
from pathlib import Path

folder = Path(sys.argv[1])
SIZES = ("standard", "many", "small")


def record(name):
    path = folder / f"{name}.json"
    return json.loads(path.read_text()) if path.exists() else None


def range_of(spread, unit, digits=2):
    """The best and the median of several runs."""
    return f"{spread['best']:.{digits}f} {unit} (median {spread['median']:.{digits}f})"


def counted(shards):
    return f"{shards} shard{'' if shards == 1 else 's'}"


def row(what, measured, file):
    print(f"| {what} | {measured} | `{file}` |")


kernel = record("kernel") or sys.exit(f"expected {folder}/kernel.json: run bench/measure.sh")
machine, floors, client = kernel["machine"], kernel["floors"], kernel["client"]
print(f"# {kernel['date'][:10]}, {machine['cpu']}, {machine['logical_cpus']} processors\n")
print(f"`bench/measure.sh` at commit {kernel['commit']}; load {machine['load']} before the kernels.")
if "EPYC" not in machine["cpu"]:
    print("This is not the reference machine (AMD EPYC Zen 4) of the targets.")

targets = [(t["what"], t["wanted"], t["measured"], t["median"], t["met"]) for t in kernel["targets"]]
for size, seconds in (("standard", 8), ("small", 240)):
    build = record(f"build-{size}")
    full = build and build["content"]["records"] >= 1_000_000
    if full:
        took, content = build["seconds"], build["content"]
        what = f"building {counted(content['shards'])} of {content['records'] // content['shards']} records, s"
        targets.append((what, f"at most {seconds}", took["best"], took["median"], took["best"] <= seconds))
    if full and size == "standard":
        peak = build["peak_memory_bytes"] / (1 << 20)
        targets.append(("its peak memory, MiB", "at most 1536", peak, None, peak <= 1536))
if targets:
    print("\nThe best of the run decides; medians stand beside.\n")
    print("| target | wanted | best | median | |\n|---|---|---|---|---|")
for what, wanted, measured, median, met in targets:
    verdict = "not measured" if met is None else "met" if met else "**not met**"
    best, median = ["-" if n is None else f"{n:.4g}" for n in (measured, median)]
    print(f"| {what} | {wanted} | {best} | {median} | {verdict} |")

print("\n| what | measured | file |\n|---|---|---|")
megabytes = (kernel["shape"]["matrix_bytes"] + kernel["shape"]["tables_bytes"]) / 1e6
for read in floors["read"]:
    row(f"reading a shard ({megabytes:.0f} MB), threads {read['threads']}",
        f"{read['ms']:.2f} ms, {read['gb_per_s']:.1f} GB/s", "kernel.json")
for name, rate in floors["peaks_g_per_s"].items():
    row(f"peak of `{name}`, one core", f"{rate:.2f} G/s", "kernel.json")
for name in ("kernel", "kernel-many"):
    for answer in (record(name) or {"answers": []})["answers"]:
        if answer["batch"] in (1, 16):
            shares = [answer["scan_share"], answer["pack_share"]]
            scan, pack = [f" ({share:.0%} of peak)" if share else "" for share in shares]
            row(f"{answer['engine']}, threads {answer['threads']}, batch {answer['batch']}: a query, scan, pack",
                f"{range_of(answer['ms_per_query'], 'ms')}, {answer['scan_ms']:.2f} ms{scan}, "
                f"{answer['pack_ms']:.2f} ms{pack}", f"{name}.json")
row("client: secret with key bundle, encrypting, decoding", f"{client['key_bundle_ms']:.2f} ms, "
    f"{client['encrypt_ms']:.2f} ms, {client['decode_ms']:.2f} ms", "kernel.json")
memory = kernel["batch_memory_bytes"]
if memory is not None:
    row("memory of the largest batch, beyond the shard", f"{memory / 1e6:.1f} MB", "kernel.json")
for cold in kernel["cold"]:
    what = f"answer, threads {cold['threads']}, batch {cold['batch']}" if cold["batch"] else cold["what"]
    row(f"not in the page cache: {what}", f"{range_of(cold['ms'], 'ms', 0)}, {cold['times_plain_read']:.2f} "
        "times the plain read", "kernel.json")

for size in SIZES:
    build, startup, reload = [record(f"{what}-{size}") for what in ("build", "startup", "reload")]
    if build:
        content = build["content"]
        row(f"{counted(content['shards'])}, {content['records']} records, {content['database_bytes'] / 1e6:.0f} MB: "
            f"built, threads {build['threads']}", f"{range_of(build['seconds'], 's')}, "
            f"{build['peak_memory_bytes'] / (1 << 20):.0f} MiB peak", f"build-{size}.json")
        row("the same: verified, every byte", range_of(build["verify_seconds"], "s"), f"build-{size}.json")
    for how in ("warm", "cold") if startup else ():
        started = startup[how]
        row(f"a server of {counted(startup['content']['shards'])} from its start, files {how}: listening, ready, first answer",
            f"{range_of(started['listening_ms'], 'ms', 0)}, {range_of(started['ready_ms'], 'ms', 0)}, "
            f"{range_of(started['first_answer_ms'], 'ms', 0)}", f"startup-{size}.json")
    for change in reload["changes"] if reload else ():
        row(f"a new epoch of {counted(reload['content']['shards'])}, {change['shards']} of them changed",
            f"{range_of(change['reload_ms'], 'ms', 0)}; slowest look-up meanwhile {change['lookup_ms_max']:.0f} ms",
            f"reload-{size}.json")

demo = folder / "demo-standard.txt"
text = demo.read_text() if demo.exists() else ""
found = re.search(r"in all +(\d+ ms)", text), re.search(r", ([\d.]+ ms) each\n\n", text)
if all(found):
    row("256 look-ups in one call over QUIC, client and server on the same cores",
        f"{found[0].group(1)}; answering alone {found[1].group(1)} each", "demo-standard.txt")
