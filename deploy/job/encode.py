"""Encodes some shards of a database from Parquet files that are partitioned by a column `shard`, as a
warehouse or DuckDB writes them: INPUT/shard=7/*.parquet. Runs in each pod of an Indexed Job (job.yaml).

    python encode.py --spec spec.json --input s3://b/records --out s3://b/db --entries s3://b/entries

The pod of completion index I (JOB_COMPLETION_INDEX) encodes the shards from I * SHARDS_PER_POD on, and writes
what was said of them to ENTRIES/I.jsonl. Credentials come from the environment. A pod that is killed or runs
twice does no harm: a file is named after its content, and appears whole or not at all.

    python encode.py --collect --entries s3://b/entries > entries.jsonl

prints the entries of all pods for `sotto part finish`. Exit codes are those of `sotto part encode`.
"""

import argparse
import json
import os
import pathlib
import subprocess
import sys

import pyarrow.csv as csv
import pyarrow.dataset as ds
import pyarrow.fs as fs


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--entries", required=True, help="folder or URL for what was said of the shards")
    parser.add_argument("--collect", action="store_true", help="print the entries of all pods")
    parser.add_argument("--spec", help="what `sotto part spec` printed")
    parser.add_argument("--input", help="folder or URL of the records")
    parser.add_argument("--key", default="sii", help="column of the keys [default: sii]")
    parser.add_argument("--value", default="value", help="column of the values [default: value]")
    parser.add_argument("--out", help="folder or URL of the store")
    parser.add_argument("--previous", help="manifest of the database that is there")
    parser.add_argument("--sotto", default="sotto", help="the program")
    parser.add_argument("--shards-per-pod", type=int, default=10)
    args = parser.parse_args()
    if not args.collect and not (args.spec and args.input and args.out):
        parser.error("expected --spec, --input and --out, or --collect")
    return args


def place(path):
    """The filesystem and the path in it of a folder or a URL."""
    return fs.FileSystem.from_uri(path) if "://" in path else (fs.LocalFileSystem(), path)


def collect(entries):
    system, folder = place(entries)
    for found in sorted(system.get_file_info(fs.FileSelector(folder)), key=lambda found: found.path):
        if found.path.endswith(".jsonl"):
            sys.stdout.write(system.open_input_stream(found.path).read().decode())
    return 0


def encode(args, shard):
    """Encodes a shard; its exit code, and its entry."""
    words = [args.sotto, "part", "encode", "--spec", args.spec, "--shard", str(shard), "--out", args.out]
    words += ["--previous", args.previous] if args.previous else []
    process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    system, folder = place(f"{args.input.rstrip('/')}/shard={shard}")
    try:
        process.stdin.write(b"sii,value\n")
        # A shard without records has no folder.
        if system.get_file_info(folder).type == fs.FileType.Directory:
            records = ds.dataset(folder, format="parquet", filesystem=system)
            for batch in records.to_batches(columns=[args.key, args.value]):
                csv.write_csv(batch, process.stdin, csv.WriteOptions(include_header=False))
        process.stdin.close()
    except BrokenPipeError:
        pass  # It has ended, and has said why.
    process.stdin = None
    said, _ = process.communicate()
    return process.returncode, said.decode()


def main():
    args = arguments()
    if args.collect:
        return collect(args.entries)
    index = int(os.environ["JOB_COMPLETION_INDEX"])
    shard_count = json.loads(pathlib.Path(args.spec).read_text())["shard_count"]
    first = index * args.shards_per_pod
    lines = []
    for shard in range(first, min(first + args.shards_per_pod, shard_count)):
        code, line = encode(args, shard)
        if code:
            # Killed by a signal: the pod is to be started again.
            return code if code > 0 else 1
        lines.append(line)
    system, folder = place(args.entries)
    system.create_dir(folder, recursive=True)
    with system.open_output_stream(f"{folder}/{index}.jsonl") as out:
        out.write("".join(lines).encode())
    return 0


if __name__ == "__main__":
    sys.exit(main())
