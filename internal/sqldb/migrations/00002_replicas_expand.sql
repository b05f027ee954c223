-- The replicas of a cluster, and what vouches for their keys.

-- +goose Up

-- What belongs to a row of signing_keys: its MAC under the cluster's secret, and
-- the version of the registry in which the key was made.
CREATE TABLE IF NOT EXISTS registered_keys (
	id      VARCHAR(255){{bin}} NOT NULL PRIMARY KEY,
	mac     {{blob}},
	version BIGINT NOT NULL DEFAULT 0
){{table}};

CREATE TABLE IF NOT EXISTS replicas (
	instance    VARCHAR(255){{bin}} NOT NULL PRIMARY KEY,
	incarnation VARCHAR(64){{bin}} NOT NULL,
	url         VARCHAR(255) NOT NULL,
	build       VARCHAR(255) NOT NULL,
	config      VARCHAR(64) NOT NULL,
	max_age     BIGINT NOT NULL,
	started_at  BIGINT NOT NULL,
	clock_at    BIGINT NOT NULL,
	seen        BIGINT NOT NULL,
	mac         {{blob}} NOT NULL,
	beat_at     BIGINT NOT NULL
){{table}};

-- Raised by every change of a signing key and by a replica that comes or goes:
-- who has seen a number has seen everything up to it.
CREATE TABLE IF NOT EXISTS registry_head (
	id      SMALLINT NOT NULL PRIMARY KEY,
	version BIGINT NOT NULL
){{table}};

INSERT INTO registry_head (id, version)
	SELECT 1, 0 FROM (SELECT 1 AS one) AS d
	WHERE NOT EXISTS (SELECT 1 FROM registry_head WHERE id = 1);
