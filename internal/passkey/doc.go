// Package passkey is the relying party of WebAuthn: the options for a browser, and the
// judgement of what the browser answers. It is the only package that imports go-webauthn.
//
// It keeps nothing. A ceremony is begun with options for the browser and a record for the
// caller, who keeps the record where every replica finds it and takes it exactly once: what
// stands here accepts the same response again as long as the same record is presented. The
// life of that record is also the only bound of a ceremony in time. The library's own check
// reads the clock of the machine and is switched off.
//
// What was decided:
//   - No attestation is asked for. Of the formats only "none" and "packed" are accepted, which
//     are those a browser sends then, and no statement is kept: a credential takes 4 KiB at
//     the most. Nothing is fetched from the FIDO metadata service.
//   - A discoverable credential is preferred, not required: a security key that can hold none
//     is a second factor and no more.
//   - The user's verification counts (Proof) only for a credential that was registered with
//     it (uvInitialized in WebAuthn §4). Else the finder of a security key without a PIN
//     could set one, and log in without the password.
//   - Outputs of extensions that nobody asked for are ignored: password managers send them.
package passkey
