-- What authenticates the whole state of a signing key, that it was revoked included.

-- +goose Up

-- What belongs to a row of signing_keys besides registered_keys: the MAC of its state
-- under the cluster's secret, and the one by the source of its private half. A version
-- that does not know this table changes a key without it. Then the MACs are wrong, and
-- the change is not believed, unless it is a revocation.
CREATE TABLE IF NOT EXISTS key_states (
	id         VARCHAR(255){{bin}} NOT NULL PRIMARY KEY,
	mac        {{blob}},
	source_mac {{blob}}
){{table}};
