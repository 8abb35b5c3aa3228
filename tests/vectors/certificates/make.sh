#!/usr/bin/env bash
# Makes the certificates beside it, which clients refuse whatever the time. Their keys are thrown
# away but where a file of keys is what is tested.
set -euo pipefail
cd "$(dirname "$0")"
keys=$(mktemp -d)
trap 'rm -r "$keys"' EXIT
san=(-addext "subjectAltName=DNS:localhost" -addext "basicConstraints=critical,CA:FALSE")
make() { # NAME OPTION...: a certificate that signs itself
    openssl req -x509 -nodes -days 36500 -subj "/CN=$1" -keyout "$keys/$1.key" -out "$1.pem" "${@:2}" 2>/dev/null
}
p256=(-newkey ec -pkeyopt ec_paramgen_curve:P-256)
# As `openssl req -x509` makes it unless told otherwise.
make authority "${p256[@]}" -addext "subjectAltName=DNS:localhost"
make client "${p256[@]}" "${san[@]}" -addext "extendedKeyUsage=clientAuth"
make nameless "${p256[@]}" -addext "basicConstraints=critical,CA:FALSE"
make email "${p256[@]}" -addext "subjectAltName=email:a@localhost" -addext "basicConstraints=critical,CA:FALSE"
make p521 -newkey ec -pkeyopt ec_paramgen_curve:P-521 "${san[@]}"
make secp256k1 -newkey ec -pkeyopt ec_paramgen_curve:secp256k1 "${san[@]}"
make explicit -newkey ec -pkeyopt ec_paramgen_curve:P-256 -pkeyopt ec_param_enc:explicit "${san[@]}"
make ed448 -newkey ed448 "${san[@]}"
make rsa1024 -newkey rsa:1024 "${san[@]}"
make rsa8192 -newkey rsa:8192 "${san[@]}"
make sha1 -newkey rsa:2048 -sha1 "${san[@]}"
make good-rsa -newkey rsa:2048 "${san[@]}"
make good-p384 -newkey ec -pkeyopt ec_paramgen_curve:P-384 "${san[@]}"
make good-ed25519 -newkey ed25519 "${san[@]}"
# Version 1: a request that is signed without extensions.
openssl req -new -nodes -subj /CN=v1 "${p256[@]}" -keyout "$keys/v1.key" -out "$keys/v1.csr" 2>/dev/null
openssl x509 -req -days 36500 -in "$keys/v1.csr" -key "$keys/v1.key" -out v1.pem 2>/dev/null
# Keys under a password, in both ways there are.
openssl genpkey -algorithm ec -pkeyopt ec_paramgen_curve:P-256 -aes256 -pass pass:secret -out encrypted-pkcs8.key 2>/dev/null
openssl ec -in encrypted-pkcs8.key -passin pass:secret -aes256 -passout pass:secret -out encrypted-sec1.key 2>/dev/null
