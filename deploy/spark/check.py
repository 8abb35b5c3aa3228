"""Builds one database with `sotto build`, with build.py on a small Spark cluster of this machine, and with the
Job's encode.py over files that DuckDB partitioned, and compares the shards to the byte. Attempts fail and an
executor is killed meanwhile.

    python -m venv V && V/bin/pip install --require-hashes -r deploy/spark/requirements.txt
    V/bin/python deploy/spark/check.py SOTTO

SOTTO is the program with the feature `store`. Needs a JDK. With a second argument, a folder, everything stays
there to be looked at.
"""

import csv
import json
import os
import pathlib
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time

import duckdb
import pyspark

HERE = pathlib.Path(__file__).parent
RECORDS, SHARDS, SEED = 200_000, 16, "5e" * 32
SPARK = pathlib.Path(pyspark.__file__).parent
# The first attempt at these shards fails; one is killed in the middle.
WRAPPER = """#!/bin/sh
case " $* " in
*" --shard 5 "*) [ -e {folder}/failed-5 ] || {{ touch {folder}/failed-5; exit 1; }} ;;
*" --shard 9 "*) [ -e {folder}/failed-9 ] || {{ touch {folder}/failed-9; kill -9 $$; }} ;;
*" --shard 12 "*) touch {folder}/at-12 ;;
esac
exec {sotto} "$@"
"""


def run(*words, text=None, code=0, **options):
    done = subprocess.run([str(word) for word in words], input=text, text=True, capture_output=True, **options)
    if done.returncode != code:
        sys.exit(f"{words}: exit code {done.returncode}, expected {code}\n{done.stdout}{done.stderr[-4000:]}")
    return done.stdout


def files(folder):
    return {path.name: path.read_bytes() for path in (folder / "shards").iterdir() if path.suffix == ".shard"}


def compare(what, found, expected):
    if found != expected:
        missing, more = sorted(expected.keys() - found.keys()), sorted(found.keys() - expected.keys())
        sys.exit(f"{what}: files are not those of `sotto build`: missing {missing}, more {more}")
    print(f"{what}: {len(found)} files, equal to those of `sotto build`")


class Check:
    def __init__(self, sotto, folder):
        self.sotto, self.folder = pathlib.Path(sotto).resolve(), folder
        self.jar = folder / "shard-of.jar"
        classes = folder / "classes"
        run("javac", "-cp", f"{SPARK}/jars/*", "-d", classes, HERE / "ShardOf.java")
        run("jar", "cf", self.jar, "-C", classes, ".")
        self.wrapper = folder / "sotto-that-fails"
        self.wrapper.write_text(WRAPPER.format(folder=folder, sotto=self.sotto))
        self.wrapper.chmod(0o755)

    def build(self, records):
        """What `sotto build` makes of the records, and Parquet of them."""
        text = "sii,value\n" + "".join(f"{key},{value}\n" for key, value in records)
        (self.folder / "in.csv").write_text(text)
        run(self.sotto, "build", "--quiet", "--input", self.folder / "in.csv", "--out", self.folder / "db",
            "--shards", SHARDS, "--seed", SEED, "--signing-key", self.folder / "key.pem")
        duckdb.sql(f"COPY (FROM read_csv('{self.folder}/in.csv', all_varchar=true)) TO '{self.folder}/in.parquet'")
        return files(self.folder / "db")

    def spec(self, *more):
        longest = max(len(value) for _, value in self.records)
        text = run(self.sotto, "part", "spec", "--records", len(self.records), "--longest-value", longest, *more)
        (self.folder / "spec.json").write_text(text)

    def spark(self, sotto, out, *more, code=0, kill=False):
        """build.py on a cluster of two executors, one of which may be killed."""
        environment = os.environ | {
            "SPARK_LOCAL_IP": "127.0.0.1", "PYSPARK_PYTHON": sys.executable, "SPARK_HOME": str(SPARK)}
        words = [SPARK / "bin/spark-submit", "--master", "local-cluster[2,1,2048]", "--jars", self.jar,
                 "--conf", "spark.ui.enabled=false", "--conf", "spark.executor.memory=2g",
                 "--conf", "spark.sql.shuffle.partitions=4",
                 HERE / "build.py", "--spec", self.folder / "spec.json", "--input", self.folder / "in.parquet",
                 "--out", out, "--entries", self.folder / "entries", "--sotto", sotto, "--shards-per-task", "3",
                 *more]
        killed = threading.Thread(target=self.kill_executor) if kill else None
        if killed:
            killed.start()
        # Spark's log goes to standard error, all that build.py prints to standard output.
        done = subprocess.run([str(word) for word in words], env=environment, cwd=self.folder,
                              text=True, capture_output=True)
        (self.folder / "spark.log").write_text(done.stderr)
        if killed:
            killed.join()
        if done.returncode != code:
            sys.exit(f"build.py: exit code {done.returncode}, expected {code}\n{done.stdout}")
        return done.stdout

    def kill_executor(self):
        """Kills an executor once a task has come to shard 12."""
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline and not (self.folder / "at-12").exists():
            time.sleep(0.02)
        executors = subprocess.run(["pgrep", "-f", "CoarseGrainedExecutorBackend.*--executor-id"],
                                   text=True, capture_output=True).stdout.split()
        # Of this run: those that descend from this process.
        if not executors:
            sys.exit("no executor was found to be killed")
        os.kill(int(random.choice(executors)), signal.SIGKILL)
        print(f"killed one of {len(executors)} executors")

    def finish(self, store):
        return run(self.sotto, "part", "finish", "--spec", self.folder / "spec.json", "--store", store,
                   "--entries", self.folder / "entries", "--signing-key", self.folder / "key.pem")

    def job(self, expected):
        """The Job's pods one after the other, over files that DuckDB partitioned."""
        keys = "".join(f"{key}\n" for key, _ in self.records)
        shards = run(self.sotto, "part", "locate", "--spec", self.folder / "spec.json", text=keys).split()
        with open(self.folder / "located.csv", "w", newline="") as out:
            writer = csv.writer(out)
            writer.writerow(["sii", "value", "shard"])
            writer.writerows((*record, shard) for record, shard in zip(self.records, shards, strict=True))
        duckdb.sql(f"COPY (FROM read_csv('{self.folder}/located.csv', all_varchar=true)) "
                   f"TO '{self.folder}/by-shard' (FORMAT parquet, PARTITION_BY (shard))")
        store = self.folder / "job-store"
        words = [sys.executable, HERE.parent / "job/encode.py", "--sotto", self.sotto,
                 "--entries", self.folder / "job-entries"]
        pods = ["--spec", self.folder / "spec.json", "--input", self.folder / "by-shard", "--out", store,
                "--shards-per-pod", "6"]
        for index in range(3):
            run(*words, *pods, env=os.environ | {"JOB_COMPLETION_INDEX": str(index)})
        (self.folder / "entries").write_text(run(*words, "--collect"))
        print(self.finish(store).strip())
        compare("Job", files(store), expected)

    def all(self):
        sample = run(self.sotto, "sample", "--records", RECORDS).splitlines()[1:]
        self.records = [tuple(line.split(",", 1)) for line in sample]
        expected = self.build(self.records)
        self.spec("--shards", SHARDS, "--seed", SEED)
        store = self.folder / "store"
        self.spark(self.wrapper, store, kill=True)
        for what in ("failed-5", "failed-9"):
            if not (self.folder / what).exists():
                sys.exit(f"{what}: that attempt was not made")
        compare("Spark", files(store), expected)
        print(self.finish(store).strip())
        self.job(expected)

        # One value changes.
        key, value = self.records[77]
        self.records[77] = (key, value + "x")
        changed = self.build(self.records)
        manifest = store / "manifests/1.json"
        self.spec("--previous", manifest)
        said = self.spark(self.sotto, store, "--previous", manifest)
        if "16 shards, 15 unchanged" not in said:
            sys.exit(f"expected 15 unchanged shards: {said}")
        print(said.strip().splitlines()[-1])
        print(self.finish(store).strip())
        compare("Spark, one record changed", files(store), changed)

        # A key twice is named by its number, and ends the build with the exit code of `sotto part encode`.
        duckdb.sql(f"COPY (FROM read_csv('{self.folder}/in.csv', all_varchar=true) UNION ALL "
                   f"SELECT '{key}', 'y') TO '{self.folder}/in.parquet'")
        failed = self.spark(self.sotto, self.folder / "other-store", code=12)
        if "repeat a key" not in failed or key in failed:
            sys.exit(f"expected a number and no key: {failed}")
        print("Spark, a key twice: exit code 12")


def main():
    folder = pathlib.Path(sys.argv[2]).resolve() if len(sys.argv) > 2 else None
    if folder:
        folder.mkdir()
        Check(sys.argv[1], folder).all()
        return
    with tempfile.TemporaryDirectory() as temporary:
        Check(sys.argv[1], pathlib.Path(temporary)).all()


if __name__ == "__main__":
    main()
