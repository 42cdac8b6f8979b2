-- Run once by the postgres image, as its superuser, when the data volume is empty.
-- The owner makes the tables (`python -m meter migrate`); the service may use them, and may
-- append to the history but not change it.
\set owner_password `cat "${SECRETS_FOLDER:-/run/secrets}/owner_password"`
\set service_password `cat "${SECRETS_FOLDER:-/run/secrets}/service_password"`

-- A statement that fails would be logged, and its password with it.
SET log_min_error_statement = 'panic';
SET log_min_duration_statement = -1;
SET log_statement = 'none';
SET password_encryption = 'scram-sha-256';

CREATE ROLE tollkeeper_owner LOGIN PASSWORD :'owner_password';
CREATE ROLE tollkeeper_service LOGIN PASSWORD :'service_password';
CREATE DATABASE tollkeeper OWNER tollkeeper_owner;
REVOKE CONNECT ON DATABASE tollkeeper FROM PUBLIC;
GRANT CONNECT ON DATABASE tollkeeper TO tollkeeper_service;
