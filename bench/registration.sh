#!/usr/bin/env bash
# Measures what registers and what hands out keys, and writes a record:
# bench/registration.sh [--quick]
#
# The load tests of tests/services, optimised, with PostgreSQL and npm's SMPP server on this
# machine, which have to be installed (and Debian's `postgresql` for pg_test_fsync): what the
# machine does at best (floor), registrations and claims of key packages at a steady rate, each
# RUNS times, and the size of a database of ROWS registrations. Writes to
# bench/record/<date>-<machine>-registration/: what each printed with the load before and after,
# machine.txt, and README.md. Exit code 1 where one failed. It takes some 10 minutes after the
# build; --quick shows that it works. RATES_REGISTRATIONS and RATES_CLAIMS name other rates.
set -euo pipefail
cd "$(dirname "$0")/.."
. bench/common.sh

out=$(record)-registration
registrations=${RATES_REGISTRATIONS:-200} claims=${RATES_CLAIMS:-1000}
runs=${RUNS:-3} rows=${ROWS:-1000000} floor=4000 seconds=2
if [ "${1:-}" = "--quick" ]; then
    out=$(mktemp -d "${TMPDIR:-/tmp}/sotto-registration-record.XXXXXX")
    registrations=5 claims=10 runs=1 rows=2000 floor=32 seconds=1
fi
mkdir -p "$out"
export SOTTO_TEST_SERVICES=1
program=$(cargo test --release --locked --features registration --test services --no-run \
    --message-format=json -p sotto 2>"$out/build.log" |
    sed -n 's/.*"executable":"\([^"]*\/services-[^"]*\)".*/\1/p' | tail -1)
[ -x "$program" ] || { cat "$out/build.log"; exit 1; }
rm "$out/build.log"
machine >"$out/machine.txt"
failed=""

# Runs one test and keeps what it printed: measure FILE TEST LOAD
measure() {
    local file=$out/$1.txt code=0
    {
        echo "\$ SOTTO_LOAD=$3 services $2 --exact --nocapture"
        echo "load before: $(cut -d' ' -f1-3 /proc/loadavg)"
        SOTTO_LOAD=$3 timeout --kill-after=10 1800 "$program" "$2" --exact --nocapture 2>&1 ||
            code=$?
        echo "load after: $(cut -d' ' -f1-3 /proc/loadavg)"
        echo "ended: $code"
    } >"$file"
    cat "$file"
    grep -q '^ended: 0' "$file" || failed="$failed $1"
}

# PostgreSQL's own program writes where the tests' servers have their files.
fsync=$(ls /usr/lib/postgresql/*/bin/pg_test_fsync 2>/dev/null | tail -1 || true)
"${fsync:-pg_test_fsync}" -s "$seconds" -f "${TMPDIR:-/tmp}/sotto-fsync" \
    >"$out/floor-fsync.txt" 2>&1 || echo "no pg_test_fsync: floor-fsync.txt"
measure floor floor::floor "$floor"
for run in $(seq "$runs"); do
    for rate in $registrations; do
        measure "registrations-$rate-$run" load::registrations "$rate"
    done
    for rate in $claims; do
        measure "claims-$rate-$run" claims::claims "$rate"
    done
done
measure claimers-100 claims::a_hundred_claimers_of_one_user_at_once_get_distinct_packages 100
measure size size::size "$rows"

{
    echo "# Registrations, claims of key packages, and the size of the registrar's database"
    echo
    echo "\`bench/registration.sh\` at $(git describe --always --dirty); the machine: \`machine.txt\`."
    echo
    echo "| what this machine does alone | |"
    echo "|---|---|"
    sed -nE 's/^ +fdatasync +([0-9.]+) ops.*/| `fdatasync` of 8 KiB (`floor-fsync.txt`) | \1 a second |/p' \
        "$out/floor-fsync.txt" | head -1
    sed -nE 's/^(test .*)?floor: (.*): ([0-9]+ a second.*)$/| \2 | \3 |/p' "$out/floor.txt"
    echo
    echo "| file | load before, after | measured |"
    echo "|---|---|---|"
    for file in "$out"/registrations-*.txt "$out"/claims-*.txt "$out"/claimers-*.txt; do
        load=$(sed -n 's/^load .*: \([0-9.]*\) .*/\1/p' "$file" | paste -sd, | sed 's/,/, /')
        seen=$(sed -nE 's/^(test .* \.\.\. )?([0-9]+ (registrations|claim).*)/\2/p' "$file")
        echo "| \`$(basename "$file")\` | $load | ${seen:-**failed**} |"
    done
    echo
    echo "| a database of $rows registrations (\`size.txt\`) |"
    echo "|---|"
    sed -nE 's/^(test .* \.\.\. )?(.*(bytes a row|registrations in all|median).*)/| \2 |/p' \
        "$out/size.txt"
    printf '\nFailed:%s.\n' "${failed:- none}"
} >"$out/README.md"
cat "$out/README.md"
echo "record: $out"
[ -z "$failed" ]
