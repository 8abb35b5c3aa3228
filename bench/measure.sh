#!/usr/bin/env bash
# Measures this machine and writes a dated record: bench/measure.sh [--quick]
#
# One command, nothing else running beside it: the kernels at the standard shape, with 4 and with 16
# packs, and at the shape of the 64 shards; then one standard shard, 64 shards of 2^16 records and 10 000 small shards of 100, each
# built, started cold and warm, and reloaded under load; the demo at the standard shape over QUIC.
# (bench/load.sh puts servers under load.) Writes to bench/record/<date>-<machine>/: a record a
# command as JSON and as text, machine.txt, and a summary, README.md. Some 45 minutes. --quick
# takes small databases and shapes, to show that it works, and writes elsewhere.
set -euo pipefail
cd "$(dirname "$0")/.."
. bench/common.sh

effort=() standard=1048576 many=4194304 shards=64 small=1000000 small_shards=10000 runs=3
case ${1:-} in
--quick) effort=(--tiny) standard=20000 many=64000 shards=16 small=10000 small_shards=100 runs=1 ;;
?*) echo "found $1, expected --quick" >&2 && exit 2 ;;
esac

out=$(record)
[ "$runs" -gt 1 ] || out=$(mktemp -d "${TMPDIR:-/tmp}/sotto-record.XXXXXX")
mkdir -p "$out"
programs
machine >"$out/machine.txt"

# Runs `sotto-bench WHAT`, which keeps what it finds: measure NAME WHAT ARGUMENTS
measure() {
    local name=$1
    shift
    echo "\$ sotto-bench $*"
    "$bench" "$@" --json "$out/$name.json"
}

measure kernel kernel "${effort[@]}"
for packs in 4 16; do # records before 2026-12 are of four packs
    measure kernel-$packs-packs kernel "${effort[@]:---packs=$packs}"
done
measure kernel-many kernel --engine auto --records $((many / shards)) "${effort[@]:---quick}"
for what in build startup reload; do
    measure $what-standard $what --records "$standard" --shards 1 --runs $runs
    measure $what-many $what --records "$many" --shards "$shards" --runs $runs
    measure $what-small $what --records "$small" --shards "$small_shards" --runs $runs
done
"$sotto" demo --records "$standard" --shards 1 2>&1 | tee "$out/demo-standard.txt"
echo "load     $(cut -d' ' -f1-3 /proc/loadavg) after" >>"$out/machine.txt"
"$bench" report --summary "$out"
echo "written to $out"
