-- Run once, by the image of PostgreSQL, on an empty volume. The user of Watchword owns its
-- database, and nothing else.
\set password `cat /run/secrets/watchword_password`
CREATE ROLE watchword LOGIN PASSWORD :'password';
CREATE DATABASE watchword OWNER watchword ENCODING 'UTF8' TEMPLATE template0;
