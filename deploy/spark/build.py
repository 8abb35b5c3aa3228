"""Builds the shards of a database on a Spark cluster: locates, shuffles and sorts the records, and encodes
each shard with `sotto part encode`. docs/scale.md has the steps before and after.

    javac -cp "$SPARK_HOME/jars/*" -d classes ShardOf.java && jar cf shard-of.jar -C classes .
    spark-submit --jars shard-of.jar build.py --spec spec.json --input s3a://b/records --out s3://b/db \
        --sotto ./sotto --entries entries.jsonl

Needs Spark 4.1 or later, Python with pyarrow and pandas, and on the executors the credentials of the store in
the environment. Nothing has to be undone when a task fails, is run twice or is killed: a file is named after its
content, and appears whole or not at all.

Exit codes: those of `sotto part encode`. 10: the records need a wider shape; 11: larger responses; 12: a key
is there twice. With the first two, change the spec (`sotto part spec --of`) and run this again.
"""

import argparse
import json
import math
import pathlib
import subprocess
import sys

from pyspark import SparkFiles, TaskContext
from pyspark.sql import SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import IntegerType

# Of 10 000 shards: so many in one task that the blocks between map and reduce tasks do not become tens of
# millions of small ones.
SHARDS_PER_TASK = 10
# Running again does not help.
FINAL_CODES = (10, 11, 12)


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--spec", required=True, help="what `sotto part spec` printed")
    parser.add_argument("--input", required=True, help="the records, as Spark reads them")
    parser.add_argument("--format", default="parquet", help="parquet, csv, json, ... [default: parquet]")
    parser.add_argument("--key", default="sii", help="column of the keys [default: sii]")
    parser.add_argument("--value", default="value", help="column of the values [default: value]")
    parser.add_argument("--out", required=True, help="folder that all executors see, or URL of the store")
    parser.add_argument("--entries", required=True, help="file for what was said of all shards")
    parser.add_argument("--sotto", default="sotto", help="the program, which is sent to the executors")
    parser.add_argument("--previous", help="manifest of the database that is there")
    parser.add_argument("--shards-per-task", type=int, default=SHARDS_PER_TASK)
    return parser.parse_args()


def encoder(shard_count, shards_per_task, command, previous):
    """The function that a task runs over the sorted records of its shards."""

    def start(shard):
        program, spec = (SparkFiles.get(name) for name in command[:2])
        words = [program, "part", "encode", "--spec", spec, "--shard", str(shard), "--out", command[2]]
        if previous:
            words += ["--previous", SparkFiles.get(previous)]
        return subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def write(process, records, is_first):
        import pyarrow.csv as csv

        try:
            csv.write_csv(records, process.stdin, csv.WriteOptions(include_header=is_first))
        except OSError:
            pass  # It has ended, and says why.

    def end(process, shard):
        # A pipe that is closed already cannot be flushed.
        try:
            process.stdin.close()
        except OSError:
            pass
        process.stdin = None
        said, error = process.communicate()
        if process.returncode not in (0, *FINAL_CODES):
            raise RuntimeError(f"shard {shard}: exit code {process.returncode}: {error.decode(errors='replace')}")
        return {"shard": shard, "code": process.returncode, "entry": said.decode().strip(),
                "error": error.decode(errors="replace").strip()}

    def encode(batches):
        import pyarrow as pa
        import pyarrow.compute as pc

        schema = pa.schema([("sii", pa.string()), ("value", pa.string())])
        nothing = pa.RecordBatch.from_pylist([], schema=schema)
        first = TaskContext.get().partitionId() * shards_per_task
        after_last = min(first + shards_per_task, shard_count)
        rows, process, shard = [], None, first - 1

        def turn_to(wanted):
            # Every shard between is there too, without records.
            nonlocal process, shard
            while shard < wanted:
                if process:
                    rows.append(end(process, shard))
                    process = None
                shard += 1
                if shard < after_last:
                    process = start(shard)
                    write(process, nothing, True)

        try:
            for batch in batches:
                runs = pc.run_end_encode(batch.column("shard"))
                at = 0
                for value, run_end in zip(runs.values.to_pylist(), runs.run_ends.to_pylist()):
                    turn_to(value)
                    records = batch.slice(at, run_end - at).select(["sii", "value"])
                    write(process, records.cast(schema), False)
                    at = run_end
            turn_to(after_last)
        finally:
            if process:
                process.kill()
        yield pa.RecordBatch.from_pylist(rows, schema=pa.schema(
            [("shard", pa.int32()), ("code", pa.int32()), ("entry", pa.string()), ("error", pa.string())]))

    return encode


def main():
    args = arguments()
    spec = json.loads(pathlib.Path(args.spec).read_text())
    spark = SparkSession.builder.appName("sotto").getOrCreate()
    for file in filter(None, (args.sotto, args.spec, args.previous)):
        spark.sparkContext.addFile(str(pathlib.Path(file).resolve()))
    # Not `locate`: Spark has a function of that name, and takes it without a word.
    spark.udf.registerJavaFunction("shard_of_key", "sotto.ShardOf", IntegerType())
    shard = F.expr(f"shard_of_key(sii, unhex('{spec['seed']}'), {spec['shard_count']})")
    records = spark.read.format(args.format).option("header", True).load(args.input)
    records = records.select(
        F.col(args.key).cast("string").alias("sii"), F.col(args.value).cast("string").alias("value"))
    tasks = math.ceil(spec["shard_count"] / args.shards_per_task)
    task = F.floor(F.col("shard") / args.shards_per_task).cast("int")
    sorted_records = (records.withColumn("shard", shard)
                      .repartitionById(tasks, task).sortWithinPartitions("shard", "sii"))
    names = [pathlib.Path(file).name for file in (args.sotto, args.spec)]
    previous = args.previous and pathlib.Path(args.previous).name
    encode = encoder(spec["shard_count"], args.shards_per_task, (*names, args.out), previous)
    done = sorted_records.mapInArrow(encode, "shard int, code int, entry string, error string").collect()
    failed = sorted((row for row in done if row["code"]), key=lambda row: row["shard"])
    for row in failed:
        print(row["error"], file=sys.stderr)
    if failed:
        return failed[0]["code"]
    entries = [row["entry"] for row in sorted(done, key=lambda row: row["shard"])]
    pathlib.Path(args.entries).write_text("".join(entry + "\n" for entry in entries))
    unchanged = sum(json.loads(entry)["unchanged"] for entry in entries)
    print(f"{len(entries)} shards, {unchanged} unchanged; entries in {args.entries}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
