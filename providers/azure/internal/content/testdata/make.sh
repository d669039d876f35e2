#!/bin/sh
# Makes the PFX files and the certificates beside this script with openssl 3. They are
# committed, so that tests need no openssl, and are good for tests alone: their keys
# are here for everybody to read.
set -eu
cd "$(dirname "$0")"
work=$(mktemp -d)
trap 'rm -r "$work"' EXIT

# authority NAME SUBJECT ISSUER: a CA, signed by itself without ISSUER.
authority() {
	openssl genpkey -quiet -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$work/$1.key"
	set -- "$1" "$2" "${3:+-CA $work/$3.pem -CAkey $work/$3.key}"
	# shellcheck disable=SC2086 # options
	openssl req -x509 -new -key "$work/$1.key" -subj "$2" -days 36500 $3 \
		-addext basicConstraints=critical,CA:true -out "$work/$1.pem"
}
authority root "/CN=Root of the tests" ""
authority intermediate "/CN=Intermediate of the tests" root

# bundle NAME KEY OPTIONS: a PFX of KEY's certificate and its issuers, the root first.
bundle() {
	name=$1 key=$2
	shift 2
	openssl pkcs12 -export -passout pass: -inkey "$work/$key.key" -in "$work/$key.pem" \
		-certfile "$work/others.pem" "$@" -out "$name.pfx"
}
cat "$work/root.pem" "$work/intermediate.pem" >"$work/others.pem"
for key in rsa ecdsa ed25519; do
	case $key in
	rsa) openssl genpkey -quiet -algorithm RSA -pkeyopt rsa_keygen_bits:2048 -out "$work/$key.key" ;;
	ecdsa) openssl genpkey -quiet -algorithm EC -pkeyopt ec_paramgen_curve:P-384 -out "$work/$key.key" ;;
	ed25519) openssl genpkey -quiet -algorithm ED25519 -out "$work/$key.key" ;;
	esac
	openssl req -x509 -new -key "$work/$key.key" -subj "/CN=$key.example.com" -days 36500 \
		-CA "$work/intermediate.pem" -CAkey "$work/intermediate.key" \
		-addext basicConstraints=critical,CA:false -out "$work/$key.pem"
	bundle "$key-modern" "$key"
	bundle "$key-legacy" "$key" -legacy
	cat "$work/$key.pem" "$work/intermediate.pem" "$work/root.pem" >"$key.pem"
done
bundle rsa-triple-des rsa -keypbe PBE-SHA1-3DES -certpbe PBE-SHA1-3DES -macalg sha1
bundle rsa-aes128 rsa -keypbe AES-128-CBC -certpbe AES-128-CBC -macalg sha512
bundle rsa-plain rsa -keypbe NONE -certpbe NONE -nomac
bundle rsa-modern-nokey rsa -nokeys
bundle rsa-legacy-nokey rsa -nokeys -legacy
bundle rsa-plain-nokey rsa -nokeys -certpbe NONE -nomac
bundle rsa-password rsa -passout pass:x
bundle rsa-slow rsa -iter 1000001 -nomaciter
chmod 644 ./*.pfx
