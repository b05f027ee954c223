module github.com/watchword-auth/watchword/test/interop

go 1.26.8

replace github.com/watchword-auth/watchword => ../..

// Its go.mod says c2sp, its repository C2SP.
replace github.com/c2sp/wycheproof => github.com/C2SP/wycheproof v0.0.0-20250901140545-b51abcfb8daf

require (
	github.com/coreos/go-oidc/v3 v3.21.0
	github.com/lestrrat-go/jwx/v3 v3.3.0
	github.com/watchword-auth/watchword v0.0.0-00010101000000-000000000000
)

require (
	github.com/c2sp/wycheproof v0.0.0-20250901140545-b51abcfb8daf // indirect
	github.com/decred/dcrd/dcrec/secp256k1/v4 v4.4.1 // indirect
	github.com/go-jose/go-jose/v4 v4.1.8 // indirect
	github.com/goccy/go-json v0.10.6 // indirect
	github.com/golang-jwt/jwt/v5 v5.3.1 // indirect
	github.com/lestrrat-go/blackmagic v1.0.4 // indirect
	github.com/lestrrat-go/dsig v1.4.0 // indirect
	github.com/lestrrat-go/dsig-secp256k1 v1.0.0 // indirect
	github.com/lestrrat-go/httpcc v1.0.1 // indirect
	github.com/lestrrat-go/httprc/v3 v3.0.6 // indirect
	github.com/lestrrat-go/option/v2 v2.0.0 // indirect
	github.com/santhosh-tekuri/jsonschema/v6 v6.0.1 // indirect
	github.com/segmentio/asm v1.2.1 // indirect
	github.com/valyala/fastjson v1.6.10 // indirect
	golang.org/x/crypto v0.58.0 // indirect
	golang.org/x/oauth2 v0.36.0 // indirect
	golang.org/x/sys v0.49.0 // indirect
	golang.org/x/text v0.43.0 // indirect
)

// Keeps the module here: its cases are files, and tidy counts only packages.
tool github.com/c2sp/wycheproof/tools/vectorlint
