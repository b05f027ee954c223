package remote

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/watchword-auth/watchword/verify/accesstoken"
)

// contract is the signer of the kind http.
type contract struct{ client *client }

// list implements signer.
func (c contract) list(ctx context.Context, algorithm string) ([]key, error) {
	var answer json.RawMessage
	if err := c.client.do(ctx, "GET", "/keys", nil, &answer); err != nil {
		return nil, fmt.Errorf("the keys of the remote signer: %w", err)
	}
	set, err := accesstoken.ParseKeySet(answer)
	if err != nil {
		return nil, fmt.Errorf("the keys of the remote signer: %w", err)
	}
	var keys []key
	for _, k := range set.Keys() {
		if k.Algorithm != algorithm {
			continue
		}
		found, err := newKey(k.ID, k.Algorithm, k.Public, 0)
		if err != nil {
			return nil, err
		}
		keys = append(keys, found)
	}
	if len(keys) == 0 {
		return nil, fmt.Errorf("the remote signer has no key for %s", algorithm)
	}
	return keys, nil
}

// sign implements signer.
func (c contract) sign(ctx context.Context, k key, input []byte) ([]byte, error) {
	request := struct {
		KeyID     string `json:"kid"`
		Algorithm string `json:"alg"`
		Digest    string `json:"digest,omitempty"`
		Message   string `json:"message,omitempty"`
	}{KeyID: k.ID, Algorithm: k.Algorithm}
	if hashOf(k.Algorithm) == 0 {
		request.Message = base64.RawURLEncoding.EncodeToString(input)
	} else {
		request.Digest = base64.RawURLEncoding.EncodeToString(input)
	}
	var answer struct {
		Signature string `json:"signature"`
	}
	if err := c.client.do(ctx, "POST", "/sign", request, &answer); err != nil {
		return nil, err
	}
	signature, err := base64.RawURLEncoding.DecodeString(answer.Signature)
	if err != nil || len(signature) == 0 {
		return nil, errors.New("the signer's answer has no signature in base64url without padding")
	}
	return signature, nil
}
