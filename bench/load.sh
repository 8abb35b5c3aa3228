#!/usr/bin/env bash
# Measures a server under load on this machine: bench/load.sh [--quick]
#
# One command, nothing else running beside it, at least two cores: the server has the first, the
# generator the second. For a standard shard and for 64 shards of 2^16 records: the highest rate
# within 500 ms for 99% of the queries, then 1.2 and 2 times it; then two front-ends with equal
# shares, and what the one feels of it when the other floods. Writes to
# bench/record/<date>-<machine>-load/: what was printed, JSON, the server's log, machine.txt.
# Some 10 minutes; --quick takes small databases and short runs, to show that it works.
set -euo pipefail
cd "$(dirname "$0")/.."
. bench/common.sh

records=1048576 many_records=4194304 many_shards=64 seconds=10 accept=65536
[ "${1:-}" = "--quick" ] && records=20000 many_records=40000 many_shards=8 seconds=3 accept=1000

out=$(record)-load
[ "${1:-}" = "--quick" ] && out=$(mktemp -d "${TMPDIR:-/tmp}/sotto-load-record.XXXXXX")
scratch load
mkdir -p "$out"

cargo build --release --quiet
sotto=$PWD/target/release/sotto
machine >"$out/machine.txt"

run() { # load FILE ARGUMENTS, for as long as here
    load "$@" --time "${seconds}s" --warm-up 2s --window 2s
}

for database in "standard $records 1" "many $many_records $many_shards"; do
    read -r what count shards <<<"$database"
    build "$what" "$count" "$shards"
    serve "$what" --target-ms 500
    run "$what" --find-limit --slo-p99 500ms --rate 100 --front-ends 16
    if [ "$what" = standard ]; then
        half=$(($(limit standard) * 2 / 5)) # each front-end's, four fifths of the limit together
        echo "two front-ends, $half queries a second each" | tee "$out/flood.txt"
        for flood in 1 10; do
            run "other-at-$flood" --rate $((half * flood)) --front-ends 1 --batch 64 \
                --verify 0 --memory 4096 >/dev/null &
            other=$!
            run "one-beside-$flood" --rate "$half" --front-ends 1 --batch 8
            wait "$other"
        done
    fi
    stop
    rm -rf "${scratch:?}/$what"
done
echo "record: $out"
