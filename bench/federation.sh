#!/usr/bin/env bash
# Measures discovery on this machine: bench/federation.sh [--quick]
#
# One command, nothing else running beside it, two cores for all processes. Starts the real programs
# on loopback: answer server, front-end with the blinding key, relay; `sotto resolve` is the device.
#
#   standard    a first synchronisation of 500 contacts at 1 000 shards of the standard shape, again
#               with another account, then one new contact
#   small       the same at 1 000 shards as `sotto build` makes them of the records there are
#   idle        2 000 devices look up once and stay connected: the relay's memory
#   refused     devices ask for twice what quotas allow: how soon the relay answers 429
#
# A thousand standard shards have 345 GB. Those of `standard` are valid, but all but four are
# hollow: zeros, of which the disk and the page cache hold one copy (bench/src/federation/hollow.rs,
# bench/one-body.c). An answer reads and multiplies as many bytes of memory as one of any shard.
# Writes to bench/record/<date>-<machine>-federation/: what was printed, the programs' logs and
# metrics, machine.txt, and summary, README.md. Some 15 minutes and 8 GB in TMPDIR; --quick takes
# small shapes and few devices, to show that it works, and writes elsewhere.
set -euo pipefail
cd "$(dirname "$0")/.."
. bench/common.sh

shards=1000 full=4 shape_records=$((1 << 19)) contacts=500 devices=2000 statements=40000
lookup_rate=20 evaluate_rate=150 accounts=100 quota=10
narrow=(--shape-records 65536 --packs 1 --pack-rows 2048)
out=$(record)-federation
case ${1:-} in
--quick)
    shards=64 full=4 shape_records=2000 contacts=40 devices=50 statements=2000
    lookup_rate=20 evaluate_rate=50 accounts=10 quota=2 narrow=(--shape-records 2000)
    out=$(mktemp -d "${TMPDIR:-/tmp}/sotto-federation-record.XXXXXX")
    ;;
?*) echo "found $1, expected --quick" >&2 && exit 2 ;;
esac
scratch federation
trap 'leave || true; rm -rf "$scratch"' EXIT
mkdir -p "$out"

if [ -z "${SOTTO_PROGRAMS:-}" ]; then
    cargo build --release --quiet --features front-end -p sotto -p sotto-bench
    SOTTO_PROGRAMS=${CARGO_TARGET_DIR:-$PWD/target}/release
fi
programs
machine >"$out/machine.txt"
cc -O2 -shared -fPIC -o "$scratch/one-body.so" bench/one-body.c

# Processes by name, and where each listens; what goes before a command that others go before.
declare -A process=() address=() admin=()
behind=()

# Starts a program that says where it listens: start NAME CORES COMMAND...
start() {
    local name=$1 cores=$2
    shift 2
    local said=$scratch/$name.said log=$out/$name.log
    rm -f "$said"
    "${behind[@]}" taskset -c "$cores" "$@" --listen 127.0.0.1:0 --admin 127.0.0.1:0 >"$said" 2>"$log" &
    process[$name]=$!
    until grep -qs 'listening on' "$said" && grep -q 'http://[0-9.:]*/' "$log"; do
        kill -0 "${process[$name]}" || { cat "$log"; exit 1; }
        sleep 0.1
    done
    address[$name]=$(sed -n 's/^listening on .*:/localhost:/p' "$said")
    admin[$name]=$(grep -om1 'http://[0-9.]*:[0-9]*' "$log")
}

# Ends what was started: leave [NAME...]
leave() {
    local name
    [ $# -gt 0 ] || set -- "${!process[@]}"
    for name in "$@"; do
        kill "${process[$name]}" 2>/dev/null && wait "${process[$name]}" || true
        unset "process[$name]"
    done
}

# The certificates, keys, statements, records and accounts of all parts.
prepare() {
    "$sotto" cert --out "$certs" >/dev/null 2>&1
    "$sotto" records blind-key "$scratch/blind.key" >/dev/null
    "$sotto" sample --statements "$statements" --blind "$scratch/blind.key" --out "$sample"
    "$sotto" records make --directory "$sample/directory.json" --pins "$sample/pins.json" \
        --database sample --record-key "$sample/record.pem" --blind "$scratch/blind.key" \
        --out "$scratch/records.csv" "$sample/statements.jsonl"
    "$sotto" directory key "$scratch/identity.pem" >"$scratch/front-end.pub"
    echo "client.localhost 1000000000 1000000000" >"$scratch/relays"
    account device-1
}

# Writes token-NAME: account NAME
account() {
    "$bench" federation account --issuer "$scratch/issuer.pem" --jwks "$scratch/jwks" \
        --token "$scratch/token-$1" --account "$1" >/dev/null
}

# Makes a hollow database and the file of zeros that stands for its holes: hollow NAME ARGUMENTS
hollow() {
    local name=$1 file
    shift
    "$bench" federation hollow --out "$scratch/$name" --database sample --contacts "$contacts" \
        --signing-key "$sample/operator.pem" --statements "$sample/statements.jsonl" \
        --records "$scratch/records.csv" --blind "$scratch/blind.key" \
        "$@" | tee "$out/$name-database.txt"
    file=$(find "$scratch/$name/shards" -name '*.shard' -print -quit)
    # In one write, as the builder writes, so that the page cache has large pages of it.
    dd if=/dev/zero of="$scratch/$name.body" bs="$(stat -c %s "$file")" count=1 \
        iflag=fullblock status=none
    du -sh --apparent-size "$scratch/$name" | sed 's/\t.*/ of files/' >>"$out/$name-database.txt"
    du -sh "$scratch/$name" | sed 's/\t.*/ on the disk/' >>"$out/$name-database.txt"
}

# Starts an answer server and the front-end on some cores: discovery NAME CORES
discovery() {
    local name=$1 cores=$2
    start "$name-server" "$cores" env "LD_PRELOAD=$scratch/one-body.so" \
        "SOTTO_BODY=$scratch/$name.body" "$sotto" serve --db "$scratch/$name" --engine cpu \
        --scrub-mib-per-second 0 --cert "$certs/server.pem" --key "$certs/server.key"
    cat >"$scratch/placement.toml" <<END
[[database]]
id = "sample"
[[database.server]]
address = "${address[$name-server]}"
name = "localhost"
END
    start "$name-front-end" "$cores" "$sotto" front-end --cert "$certs/server.pem" \
        --key "$certs/server.key" --relay-ca "$certs/ca.pem" --relays "$scratch/relays" \
        --ohttp-keys "$scratch/ohttp-keys" --identity "$scratch/identity.pem" \
        --directory "$sample/directory.json" --directory-pins "$sample/pins.json" \
        --placement "$scratch/placement.toml" --blind-key "sample=$scratch/blind.key" \
        --ca "$certs/ca.pem" --accept-shard-records 0
}

# Starts a relay before a front-end: relay NAME CORES [ARGUMENTS]
relay() {
    local name=$1 cores=$2
    shift 2
    start "$name-relay" "$cores" "$sotto" relay --cert "$certs/server.pem" \
        --key "$certs/server.key" --accounts "jwks:$scratch/jwks" \
        --front-end "https://${address[${name%%-*}-front-end]}" --front-end-ca "$certs/ca.pem" \
        --client-cert "$certs/client.pem" --client-key "$certs/client.key" \
        --state "$scratch/$name-relay-state" "$@"
}

# Seconds of processor time that a process has used.
cpu_seconds() {
    awk -v tick="$(getconf CLK_TCK)" '{ sub(/.*\) /, ""); printf "%.2f", ($12 + $13) / tick }' \
        "/proc/$1/stat"
}

# A device resolves an address book: resolve NAME FILE DEVICE BOOK
resolve() {
    local name=$1 file=$2 device=$3 book=$4 part code=0 began
    local -A before=()
    for part in server front-end relay; do
        before[$part]=$(cpu_seconds "${process[$name-$part]}")
    done
    began=$(date +%s.%N)
    { TIMEFORMAT='device: %R s, of the processor %U s user and %S s system'
      time "$sotto" resolve --relay "https://${address[$name-relay]}" --relay-ca "$certs/ca.pem" \
        --token-file "$scratch/token-$device" --front-end-keys "$scratch/front-end.pub" \
        --directory-pins "$sample/pins.json" --state "$scratch/$name-$device.state" \
        --state-key "$scratch/$name-$device.key" --accept-pack-records 0 --contacts "$book" \
        >"$scratch/lines" 2>"$scratch/summary" || code=$?; } 2>"$scratch/times"
    [ "$code" -le 1 ] || { cat "$scratch/summary"; exit 1; }
    {
        echo "\$ sotto resolve --contacts $(basename "$book") ..., at $name"
        cat "$scratch/summary" "$scratch/times"
        for part in server front-end relay; do
            echo "$part: $(calc "$(cpu_seconds "${process[$name-$part]}") - ${before[$part]}") s" \
                "of the processor"
        done
        sed -n 's/^[^ ].*: \(found\|not found\|answer not believed\|record refused\).*/\1/p' \
            "$scratch/lines" | sort | uniq -c
        echo "load $(cut -d' ' -f1-3 /proc/loadavg)"
    } | tee "$out/$file.txt"
}

# Keeps the numbers of a program: metrics NAME
metrics() {
    curl -sS "${admin[$1]}/metrics" | grep -v '^#' | grep -v ' 0$' >"$out/$1-metrics.txt"
}

# Synchronises at a database, warm and cold, and then one contact more: synchronise NAME
synchronise() {
    local name=$1
    discovery "$name" 0,1
    relay "$name" 0,1
    for device in "$name-1" "$name-2"; do
        account "$device"
        resolve "$name" "$device-first" "$device" "$scratch/standard/book.vcf"
        metrics "$name-relay"
    done
    resolve "$name" "$name-2-one-more" "$name-2" "$scratch/standard/book-more.vcf"
    metrics "$name-server"
    metrics "$name-front-end"
    leave
}

# Asks a relay with the options of all parts: ask CORES COMMAND ARGUMENTS
ask() {
    local cores=$1 command=$2
    shift 2
    taskset -c "$cores" "$bench" federation "$command" --relay "https://${address[$relay]}" \
        --relay-ca "$certs/ca.pem" --front-end-keys "$scratch/front-end.pub" --database sample \
        --signing-key "$sample/operator.pem" --issuer "$scratch/issuer.pem" "$@"
}

certs=$scratch/certs sample=$scratch/sample
prepare >"$out/prepare.txt" 2>&1 || { cat "$out/prepare.txt"; exit 1; }

hollow standard --shards "$shards" --full "$full" --shape-records "$shape_records"
synchronise standard
rm -rf "$scratch"/standard/shards "$scratch/standard.body"

"$sotto" build --input "$scratch/records.csv" --out "$scratch/small" --shards "$shards" \
    --database sample --value-bytes 248 --signing-key "$sample/operator.pem" \
    2>"$out/small-build.txt"
synchronise small
rm -rf "$scratch/small"

# The relay reads nothing of what it forwards, so a smaller shape with the same bytes will do.
hollow narrow --shards 64 "${narrow[@]}"
discovery narrow 0,1
relay narrow 0,1
relay=narrow-relay
ask 0,1 idle --devices "$devices" --at-once 32 --process "${process[$relay]}" |
    tee "$out/idle.json"
metrics "$relay"
leave

# The relay on the first core, everything else on the second, where the generator goes first.
behind=(nice -n 10)
discovery narrow 1
behind=()
burst=$((16 * quota))
relay narrow-refusing 0 --lookup "$burst,$burst/day" --evaluate "$burst,$burst/day"
relay=narrow-refusing-relay
for kind in evaluate lookup; do
    rate=${kind}_rate
    ask 1 refused --kind $kind --rate "${!rate}" --accounts "$accounts" --quota "$quota" |
        tee "$out/refused-$kind.json"
done
metrics "$relay"
leave
echo "load     $(cut -d' ' -f1-3 /proc/loadavg) after" >>"$out/machine.txt"
echo "record: $out"
