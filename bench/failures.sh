#!/usr/bin/env bash
# Runs every failure in full once and writes a record: bench/failures.sh [--quick]
#
# The tests of failures (tests/failures, with SOTTO_FAILURES=full; shard files in tests/epochs.rs;
# devices in tests/gpu_faults.rs; the builder in tests/build.rs), one by one, each with a time
# limit, then a server in a network namespace whose packets `tc netem` loses, repeats, delays and
# reorders. Takes what is installed: libfaketime for clocks that jump (Debian's `faketime`), a
# Vulkan driver named by SOTTO_TEST_GPU for a device that is lost (llvmpipe), `ip`, `tc` and a
# kernel with sch_netem; what is not there is said. Writes to
# bench/record/<date>-<machine>-failures/: what each printed, machine.txt, and README.md: what was
# done, how long it took to come back, wrong answers, panics. Exit code 1 where one failed. Some 20
# minutes; --quick does as little as CI.
set -euo pipefail
cd "$(dirname "$0")/.."
. bench/common.sh

out=$(record)-failures
export SOTTO_FAILURES=full
if [ "${1:-}" = "--quick" ]; then
    SOTTO_FAILURES=small
    out=$(mktemp -d "${TMPDIR:-/tmp}/sotto-failures-record.XXXXXX")
fi
scratch failures
mkdir -p "$out"
machine >"$out/machine.txt"
programs
export sotto # for netem.sh

# Runs a program's tests one by one, and keeps what each printed and how it ended.
tests() {
    local program=$1 name file code
    shift
    [ -e "tests/$program.rs" ] || [ -e "tests/$program" ] || { echo "$program: not here"; return; }
    for name in $(cargo test --quiet --test "$program" -- --list "$@" 2>/dev/null |
        sed -n 's/: test$//p'); do
        file=$out/$program-$(slug "$name").txt code=0
        timeout --kill-after=10 900 cargo test --quiet --test "$program" -- --exact "$name" \
            --nocapture >"$file" 2>&1 || code=$?
        echo "ended: $code" >>"$file"
        grep -E '^(record|skipped): |^skipped' "$file" || true
        echo "$program $name: ended $code"
    done
}

tests failures
tests epochs
tests gpu_faults
tests build killed
tests build disk

# In a namespace of its own, where lo may be made bad.
netem() {
    local file code=0
    file=$out/netem-$(slug "$*").txt
    timeout --kill-after=10 900 unshare --net bash bench/netem.sh "$scratch/netem" netem "$@" \
        >"$file" 2>&1 || code=$?
    echo "ended: $code" >>"$file"
    grep -E '^(record|skipped): ' "$file" || true
}
"$sotto" cert --out "$scratch/netem/certs" >/dev/null
"$sotto" sample --records 20000 >"$scratch/netem/records.csv"
"$sotto" build --input "$scratch/netem/records.csv" --out "$scratch/netem/db" --shards 4 \
    >/dev/null 2>&1
netem loss 1%
netem loss 10%
netem delay 20ms 10ms reorder 25% 50%
netem loss 5% delay 10ms 5ms duplicate 5% corrupt 1%

"$bench" report --summary "$out" && code=0 || code=$?
cat "$out/README.md"
echo "record: $out"
exit $code
