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
# log, machine.txt. Some 15 minutes; --quick takes small databases, fixed
# rates and short runs, to show that it works.
set -euo pipefail
cd "$(dirname "$0")/.."
. bench/common.sh

records=1048576 many_records=4194304 many_shards=64 accept=64000
seconds=10 timing=(--warm-up 2s --window 2s) walk=(--find-limit --rate 200)
out=$(record)-load
if [ "${1:-}" = "--quick" ]; then
    records=20000 many_records=40000 many_shards=8 accept=1000
    seconds=1 timing=(--warm-up 500ms --window 200ms) walk=(--rate 50)
    out=$(mktemp -d "${TMPDIR:-/tmp}/sotto-load-record.XXXXXX")
fi
scratch load
mkdir -p "$out"

programs
machine >"$out/machine.txt"

# Leaves the first core to the engine: the server's other threads go to the generator's.
apart() {
    local thread
    for thread in /proc/"$server"/task/*; do
        grep -q '^\(engine\|sotto-engine\)' "$thread/comm" || taskset -pc 1 "${thread##*/}" >/dev/null
    done
}

# Waits until the server computes for this load, or the load is over: busy PROCESS
busy() {
    local before=0 now=0
    until [ $((now - before)) -gt 5 ] || ! kill -0 "$1" 2>/dev/null; do
        before=$(cut -d' ' -f14 "/proc/$server/stat")
        sleep 0.5
        now=$(cut -d' ' -f14 "/proc/$server/stat")
    done
}

run() { # FILE SECONDS ARGUMENTS
    local file=$1 time=$2
    shift 2
    load "$file" "$@" "${timing[@]}" --time "${time}s"
}

for database in "standard $records 1" "many $many_records $many_shards"; do
    read -r what count shards <<<"$database"
    build "$what" "$count" "$shards"
    serve "$what" --target-ms 500
    run "$what" "$seconds" "${walk[@]}" --front-ends 16
    apart
    run "$what-apart" "$seconds" "${walk[@]}" --front-ends 16
    if [ "$what" = standard ]; then
        rate=$(limit standard-apart)
        half=$((${rate:-50} * 2 / 5)) # each's, four fifths of the limit together
        echo "two front-ends, $half queries a second each" | tee "$out/flood.txt"
        for flood in 1 10; do
            # Three times as long: it has to go on for as long as the one is measured.
            run "other-at-$flood" $((3 * seconds)) --rate $((half * flood)) --front-ends 1 \
                --batch 64 --verify 0 --memory 6144 >/dev/null &
            other=$!
            busy "$other"
            run "one-beside-$flood" "$seconds" --rate "$half" --front-ends 1
            wait "$other"
        done
    fi
    stop
    rm -rf "${scratch:?}/$what"
done
echo "record: $out"
