#!/usr/bin/env bash
# A long run: bench/soak.sh [--hours H] [--minutes M] [--rate R] [--every S] [--fill S] [--quick]
#
# At least two cores: the server has the first, the generator the second; other work beside it is
# better on neither. A standard shard; the capacity, unless --rate says it: the highest rate within
# 500 ms for 99% of the queries. Then 80% of it until what the server keeps for its peers is full (--fill seconds),
# the same for H hours (1), and 200% for M minutes (10). Every S seconds (10) a line about the
# server's process from /proc: memory, threads, open files.
# Writes to bench/record/<date>-<machine>-soak/: samples.csv, what the generator printed and found,
# the server's log, machine.txt, and README.md, which judges: memory, threads and files flat, no
# answer wrong, no query lost at 80%, no panic, a server that leaves when told. Exit code 1 where one
# is not so. --quick takes a small database, a rate and seconds, to show that it works.
set -euo pipefail
cd "$(dirname "$0")/.."
. bench/common.sh

hours=1 minutes=10 rate="" every=10 fill=150 records=1048576 accept=64000 quick="" memory=()
while [ $# -gt 0 ]; do
    case $1 in
    --hours) hours=$2 && shift ;;
    --minutes) minutes=$2 && shift ;;
    --rate) rate=$2 && shift ;;
    --every) every=$2 && shift ;;
    --fill) fill=$2 && shift ;;
    --quick) quick=1 hours=0.008 minutes=0.25 every=0.5 fill=20 rate=400 records=20000 accept=1000
        memory=(--memory 288) ;; # full, so that it can be flat, within seconds
    *) echo "found $1, expected --hours, --minutes, --rate, --every, --fill or --quick" >&2 && exit 2 ;;
    esac
    shift
done

out=$(record)-soak
[ -z "$quick" ] || out=$(mktemp -d "${TMPDIR:-/tmp}/sotto-soak-record.XXXXXX")
scratch soak
mkdir -p "$out"
programs
machine >"$out/machine.txt"
build soak "$records" 1
serve soak "${memory[@]}"

# A line about the server now; nothing once it is gone.
sample() {
    local status=/proc/$server/status
    awk -v seconds="$(date +%s.%N)" -v phase="$(cat "$scratch/phase")" \
        -v files="$(ls "/proc/$server/fd" | wc -l)" '
        { value[$1] = $2 }
        END { printf "%.1f,%s,%d,%d,%d,%d,%d\n", seconds, phase, value["VmRSS:"],
            value["RssAnon:"], value["RssFile:"], value["Threads:"], files }' \
        "$status" >>"$out/samples.csv" 2>/dev/null || true
}

# The generator for a whole phase, which does not end early: four windows and one to warm up.
phase() {
    local name=$1 seconds=$2 share=$3
    local window
    window=$(calc "$seconds / 5")s
    echo "$name" >"$scratch/phase"
    load "$name" --rate "$(calc "$rate * $share")" --front-ends 8 --memory 2048 \
        --warm-up "$window" --window "$window" --time "$(calc "$seconds * 0.8")s"
}

echo "seconds,phase,rss_kib,anon_kib,file_kib,threads,files" >"$out/samples.csv"
echo begin >"$scratch/phase"
while kill -0 "$server" 2>/dev/null; do
    sample
    sleep "$every"
done &
sampler=$!

if [ -z "$rate" ]; then
    echo walk >"$scratch/phase"
    load walk --find-limit --slo-p99 500ms --rate 100 --front-ends 16 --time 10s \
        --warm-up 2s --window 2s
    rate=$(limit walk)
fi
echo "capacity $rate queries a second" | tee "$out/capacity.txt"
phase fill "$fill" 0.8
phase steady "$(calc "$hours * 3600")" 0.8
phase flood "$(calc "$minutes * 60")" 2
echo after >"$scratch/phase"
sleep "$(calc "3 * $every")"
code=0
stop || code=$?
wait "$sampler"
echo "$code" >"$out/exit-code.txt"
"$bench" report --summary "$out" || code=1
cat "$out/README.md"
echo "record: $out"
exit $code
