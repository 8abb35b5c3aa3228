#!/usr/bin/env bash
# Measures a server under load on this machine: bench/load.sh [--quick]
#
# One command, nothing else running beside it, at least two cores: the server has the first, the
# generator the second. For a standard shard and for 64 shards of 2^16 records: the highest rate
# within 500 ms for 99% of the queries, then 1.2 and 2 times it. Taking in what is refused costs the
# server's one core time that its engine then lacks, so the same again with the engine alone on the
# first core and the server's network beside the generator on the second ("apart"), as a server with
# more cores has it; so too two front-ends with equal shares, and what the one feels of it when the
# other floods. Writes to bench/record/<date>-<machine>-load/: what was printed, JSON, the server's
# log, machine.txt. Some 15 minutes; --quick takes small databases and short runs, to show that it works.
set -euo pipefail
cd "$(dirname "$0")/.."

records=1048576 many_records=4194304 many_shards=64 seconds=10 accept=65536
[ "${1:-}" = "--quick" ] && records=20000 many_records=40000 many_shards=8 seconds=3 accept=1000

model=$(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -1)
name=$(echo "$model $(nproc) cores" | tr -cs 'A-Za-z0-9' '-' | tr 'A-Z' 'a-z' | sed 's/^-//; s/-$//')
out=$PWD/bench/record/$(date -u +%F)-$name-load
[ "${1:-}" = "--quick" ] && out=$(mktemp -d "${TMPDIR:-/tmp}/sotto-load-record.XXXXXX")
scratch=$(mktemp -d "${TMPDIR:-/tmp}/sotto-load.XXXXXX")
server=
stop() { [ -n "$server" ] && kill "$server" 2>/dev/null && wait "$server" || true; server=; }
trap 'stop; rm -rf "$scratch"' EXIT
mkdir -p "$out"

cargo build --release --quiet
sotto=$PWD/target/release/sotto
{
    echo "commit   $(git describe --always --dirty)"
    echo "date     $(date -u +%FT%TZ)"
    echo "kernel   $(uname -sr)"
    echo "load     $(cut -d' ' -f1-3 /proc/loadavg) before"
    lscpu | grep -E '^(Model name|CPU\(s\)|Thread|Hypervisor)'
} >"$out/machine.txt"
"$sotto" cert --out "$scratch/certs" >/dev/null

# Starts a server on the first core: serve NAME RECORDS SHARDS
serve() {
    rm -f "$scratch/listening"
    "$sotto" sample --records "$2" >"$scratch/records.csv"
    "$sotto" build --input "$scratch/records.csv" --out "$scratch/$1" --shards "$3" \
        --value-bytes 120 2>/dev/null >"$out/$1-build.txt"
    taskset -c 0 "$sotto" serve --db "$scratch/$1" --listen 127.0.0.1:0 --threads 1 --engine cpu --target-ms 500 \
        --cert "$scratch/certs/server.pem" --key "$scratch/certs/server.key" \
        >"$scratch/listening" 2>"$out/$1-server.txt" &
    server=$!
    until grep -qs listening "$scratch/listening"; do
        kill -0 "$server" || { cat "$out/$1-server.txt"; exit 1; }
        sleep 0.1
    done
    target=(--server "localhost:$(sed 's/.*://' "$scratch/listening")"
        --ca "$scratch/certs/ca.pem" --operator-key "$scratch/$1/operator.pub"
        --accept-shard-records "$accept" --cpus 1)
}

# Leaves the first core to the engine: the server's other threads go to the generator's.
apart() {
    local thread
    for thread in /proc/"$server"/task/*; do
        grep -q '^\(engine\|sotto-engine\)' "$thread/comm" || taskset -pc 1 "${thread##*/}" >/dev/null
    done
}

# Waits until the server computes.
busy() {
    local before=0 now=0
    until [ $((now - before)) -gt 5 ]; do
        before=$(cut -d' ' -f14 "/proc/$server/stat")
        sleep 0.5
        now=$(cut -d' ' -f14 "/proc/$server/stat")
    done
}

# Runs the generator, keeps what it printed; an invalid run is a result like any other.
load() {
    local file=$1
    shift
    echo "\$ sotto bench load ... $*" | tee "$out/$file.txt"
    "$sotto" bench load "${target[@]}" --time "${seconds}s" --warm-up 2s --window 2s --lag 20ms \
        --json "$out/$file.json" "$@" 2>&1 | tee -a "$out/$file.txt" || true
}

limit() { # the rate that a walk found
    python3 -c 'import json, sys; print(int(json.load(open(sys.argv[1]))["limit"]["rate"]))' \
        "$out/$1.json"
}

for database in "standard $records 1" "many $many_records $many_shards"; do
    read -r what count shards <<<"$database"
    serve "$what" "$count" "$shards"
    load "$what" --find-limit --slo-p99 500ms --rate 200 --front-ends 16
    apart
    load "$what-apart" --find-limit --slo-p99 500ms --rate 200 --front-ends 16
    if [ "$what" = standard ]; then
        half=$(($(limit standard-apart) * 2 / 5)) # each's, four fifths of the limit together
        echo "two front-ends, $half queries a second each" | tee "$out/flood.txt"
        for flood in 1 10; do
            # Three times as long: it has to go on for as long as the one is measured.
            load "other-at-$flood" --rate $((half * flood)) --front-ends 1 --batch 64 \
                --verify 0 --memory 6144 --time "$((3 * seconds))s" >/dev/null &
            other=$!
            busy
            load "one-beside-$flood" --rate "$half" --front-ends 1
            wait "$other"
        done
    fi
    stop
    rm -rf "${scratch:?}/$what"
done
echo "record: $out"
