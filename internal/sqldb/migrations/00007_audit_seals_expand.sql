-- What shows that nobody has changed the audit trail.

-- +goose Up

-- The seals of the audit trail, numbered without gaps. Package audit says what their content
-- is. The number is in it as well, and the MAC is over its digest.
CREATE TABLE IF NOT EXISTS audit_seals (
	seq     BIGINT NOT NULL PRIMARY KEY,
	content {{blob}} NOT NULL,
	mac     {{blob}} NOT NULL
){{table}};
