#!/usr/bin/env bash
# Measures this machine and writes a dated record: bench/measure.sh [--small-shards N]
#
# One command, nothing else running beside it: kernels at the standard shape, a build of a
# standard shard, the demo at the standard shape over QUIC, and a database of small shards
# (10 000 unless told otherwise; 0 leaves it out) built, verified, opened and queried.
# Writes to bench/record/<date>-<machine>/: raw output a step, kernel.json, machine.txt, and a
# summary, README.md. Some 15 minutes.
set -euo pipefail
cd "$(dirname "$0")/.."
. bench/common.sh

small_shards=10000
[ "${1:-}" = "--small-shards" ] && small_shards=$2

out=$(record)
scratch measure
mkdir -p "$out"

cargo build --release --quiet
sotto=$PWD/target/release/sotto

machine >"$out/machine.txt"

# Runs a step, keeps what it printed, and says what it took.
step() {
    local file=$out/$1.txt
    shift
    echo "\$ $*" | sed "s|$scratch|\$TMP|g; s|$sotto|sotto|g; s/^\$ peak /$ /" | tee "$file"
    { time "$@"; } 2>&1 | sed "s|$scratch|\$TMP|g; s|$sotto|sotto|g" | tee -a "$file"
}

peak() { # peak memory of the command, in its record
    python3 -c 'import resource, subprocess, sys
code = subprocess.call(sys.argv[1:])
peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024
print(f"peak memory {peak} MiB")
sys.exit(code)' "$@"
}

step kernel cargo bench --quiet --bench kernel -- --json "$out/kernel.json"
"$sotto" sample --records 1048576 >"$scratch/standard.csv"
step build-standard peak "$sotto" build --input "$scratch/standard.csv" --out "$scratch/standard" \
    --shards 1 --value-bytes 120
step demo-standard "$sotto" demo --records 1048576 --shards 1
rm -rf "$scratch/standard" "$scratch/standard.csv"

if [ "$small_shards" -gt 0 ]; then
    "$sotto" sample --records $((small_shards * 100)) >"$scratch/small.csv"
    step build-small peak "$sotto" build --input "$scratch/small.csv" --out "$scratch/small" \
        --shards "$small_shards" --pack-rows 128 --packs 1 --quiet
    step verify-small "$sotto" verify "$scratch/small" --quiet
    "$sotto" cert --out "$scratch/certs" >/dev/null
    begin=$(date +%s.%N)
    "$sotto" serve --db "$scratch/small" --listen 127.0.0.1:0 --admin off --cert "$scratch/certs/server.pem" \
        --key "$scratch/certs/server.key" >"$scratch/serve.out" 2>"$scratch/serve.err" &
    server=$!
    until grep -q '^listening on' "$scratch/serve.out"; do kill -0 $server; done
    {
        echo "serve: $(echo "$(date +%s.%N) - $begin" | bc) s to the first line"
        grep -E 'VmRSS|RssAnon' "/proc/$server/status"
    } | tee "$out/serve-small.txt"
    address=$(sed -n 's/^listening on //p' "$scratch/serve.out")
    cut -d, -f1 "$scratch/small.csv" | tail -n +2 | shuf -n 2000 >"$scratch/keys"
    step lookup-small bash -c "'$sotto' lookup --server 'localhost:${address##*:}' \
        --ca '$scratch/certs/ca.pem' --operator-key '$scratch/small/operator.pub' \
        --accept-shard-records 50 --keys-from '$scratch/keys' | cut -f2 | grep -vc 'not found'"
    stop || true
fi
echo "load     $(cut -d' ' -f1-3 /proc/loadavg) after" >>"$out/machine.txt"
bench/summary.py "$out" >"$out/README.md"
echo "written to $out"
