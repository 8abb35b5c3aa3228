#!/usr/bin/env python3
"""Summarises a GPU record: bench/gpu_summary.py bench/record/<date>-<device>-gpu > its README.md

Reads gpu.json, gpu-8-packs.json where there is one, and what the other steps printed; of a run that
was cut short it says so.
"""

import json
import re
import sys
from pathlib import Path

folder = Path(sys.argv[1])


def text(name):
    path = folder / name
    return path.read_text() if path.exists() else ""


def tables(gpu):
    """A shape's tables."""
    floors, shard = gpu["floors"], gpu["shape"]
    print(f"\nA shard of {shard['packs'] * shard['pack_rows']} x {shard['columns']} and {shard['packs']} packs of {shard['pack_rows']}"
          f" rows, {(shard['matrix_bytes'] + shard['tables_bytes']) / 1e6:.1f} MB; engine {gpu['engine']}.\n")
    print("| what | measured |\n|---|---|")
    print(f"| reading | {floors['read_gb_per_s']:.0f} GB/s over {floors['read_bytes'] >> 20} MiB |")
    wide = floors["wide_g_per_s"]
    print(f"| multiply-adds a second: u32, u64 widening, dot4I8Packed | {floors['narrow_g_per_s']:.0f} G, "
          f"{f'{wide:.0f} G' if wide else 'none'}, {floors['dot_g_per_s']:.0f} G |")
    uploads = gpu["uploads"]
    print(f"| uploads: into free memory, in place, while answering | {uploads['into_free_memory_gb_per_s']:.2f}, "
          f"{uploads['in_place_of_others_gb_per_s']:.2f}, {uploads['while_answering_gb_per_s']:.2f} GB/s |")
    print(f"| answers a second, batches of {uploads['batch']}: undisturbed, while uploading | "
          f"{uploads['answers_per_s']:.0f}, {uploads['answers_per_s_while_uploading']:.0f} |")
    traffic = gpu["traffic"]
    for loop in traffic["loops"]:
        print(f"| random queries over {traffic['shards']} shards, {loop['outstanding']} outstanding | "
              f"{loop['queries_per_s']:.0f} a second, median {loop['median_ms']:.2f} ms, 99% within {loop['p99_ms']:.2f} ms |")
    print(f"| random queries whose answers equal the processor's | {traffic['checked']} of {traffic['checked']} |")

    print("\nMicroseconds a query, share of the floor (what it would take at best with the rates above):\n")
    print("| batch | alone | median | streamed | prepare | scan | pack | finish |\n|---|---|---|---|---|---|---|---|")
    for row in gpu["answers"]:
        def timed(name):
            us, share = row[f"{name}_us"], row[f"{name}_share"]
            return f"{us['best'] if isinstance(us, dict) else us:.1f}" + (f" ({share:.0%})" if share is not None else "")
        stages = [timed(name) for name in ("prepare", "scan", "pack", "finish")]
        print(f"| {row['batch']} | {timed('alone')} | {row['alone_us']['median']:.1f} | {timed('streamed')} | "
              + " | ".join(stages) + " |")


machine, parity = text("machine.txt"), text("parity.txt")
steps = re.findall(r"^([\w-]+) ended (\d+) after (\d+) s$", machine, re.M)
try:
    gpu = json.loads(text("gpu.json"))
except ValueError:
    gpu = None
device = re.search(r"^device +(.*)$", machine, re.M)
software = gpu["device"]["software"] if gpu else "NOT MEASURED ON A GPU" in text("gpu.txt")

print(f"# {folder.name[:10]}, {device.group(1) if device else 'no device'}\n")
if software:
    print("**not measured on a GPU**: the numbers are of a processor that plays one, kept only to show")
    print("that the measurement runs. None was at hand.\n")
command = "`bench/gpu.sh`" + (" --quick" if gpu and gpu["effort"] == "quick" else "")
commit = re.search(r"^commit +(.*)$", machine, re.M)
print(f"{command} at commit {commit.group(1) if commit else 'unknown'}; the machine, driver and load are in")
print("`machine.txt`. " + ", ".join(f"{step} took {seconds} s" for step, _, seconds in steps) + ".")
for step, code, _ in steps:
    if code != "0":
        print(f"**{step} failed** (exit {code}{', out of time' if code == '124' else ''}): `{step}.txt`.")
result = re.search(r"^test result: (.*?);", parity, re.M)
print(f"Engines equal the reference: {result.group(1) if result else 'no result'} (`parity.txt`).\n")
if gpu is None:
    print("The benchmark did not end; what it printed is in `gpu.txt`.")
    sys.exit()

if gpu["targets"]:
    print("| target (for an H200) | wanted | best | median | |\n|---|---|---|---|---|")
    for target in gpu["targets"]:
        best, median = [f"{n:.4g}" if n is not None else "-" for n in (target["measured"], target["median"])]
        verdict = "met" if target["met"] else "**not met**"
        print(f"| {target['what']} | {target['wanted']} | {best} | {median} | {verdict} |")
else:
    print("The targets are for an H200 and the standard shard: not judged here.")

tables(gpu)
if text("gpu-8-packs.json"):
    print("\n## Eight packs")
    tables(json.loads(text("gpu-8-packs.json")))
