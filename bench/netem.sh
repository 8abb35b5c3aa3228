#!/usr/bin/env bash
# A server and its clients over a bad network: unshare --net bash bench/netem.sh DIR QDISC...
#
# Called by bench/failures.sh, in a network namespace of its own, with a folder that has records.csv,
# certs and a database, and the words of a `tc qdisc`. Looks up a thousand keys in eight calls, one
# after the other, compares every value, and says how long it took. Where the kernel has no such
# qdisc it says so and ends well.
set -euo pipefail
here=$(cd "$(dirname "$0")/.." && pwd)
cd "$1"
shift
sotto=${sotto:-$here/target/release/sotto}
ip link set lo up
if ! tc qdisc add dev lo root "$@" 2>tc.err; then
    echo "skipped: $*: $(tr '\n' ' ' <tc.err)(kernel $(uname -r))"
    exit 0
fi
rm -f listening
"$sotto" serve --db db --listen 127.0.0.1:0 --admin off --engine cpu --cert certs/server.pem \
    --key certs/server.key >listening 2>log &
server=$!
trap 'kill $server 2>/dev/null || true' EXIT
until grep -qs listening listening; do
    kill -0 $server || { cat log; exit 1; }
    sleep 0.1
done
tail -n +2 records.csv | shuf -n 1000 --random-source=<(yes) >wanted.csv
begin=$(date +%s%N)
for part in 0 1 2 3 4 5 6 7; do
    awk -F, -v part=$part 'NR % 8 == part { print $1 }' wanted.csv >keys
    awk -F, -v part=$part 'NR % 8 == part { print $1 "\t" $2 }' wanted.csv | sort >expected
    "$sotto" lookup --server "localhost:$(sed 's/.*://' listening)" --ca certs/ca.pem \
        --operator-key db/operator.pub --accept-shard-records 1000 --no-pins --keys-from keys | sort >found
    diff expected found || { echo "found other values than expected (above)"; exit 1; }
done
took=$((($(date +%s%N) - begin) / 1000000))
tc -s qdisc show dev lo
kill $server
wait $server
if grep panicked log; then exit 1; fi
echo "record: $*: 1000 look-ups, 0 wrong, 0 lost, in $took ms"
