-- proxyd's map of users and domains. Any tool may write it while proxyd reads; a committed change counts at once.
--
-- backend is the name of a backend in proxyd.yaml, or host, host:port or [v6]:port. Names are looked up in lower case:
-- store them so. With `PRAGMA journal_mode = WAL` (as `proxyd map` sets it), readers never wait for a writer.

-- One user: login is the whole name. login_as is the name to log in with at the backend, if it is another.
CREATE TABLE IF NOT EXISTS users (
  login TEXT PRIMARY KEY,
  backend TEXT NOT NULL,
  login_as TEXT
) WITHOUT ROWID;

-- All users of a domain who have no row of their own: domain is what stands behind the last @.
CREATE TABLE IF NOT EXISTS domains (
  domain TEXT PRIMARY KEY,
  backend TEXT NOT NULL
) WITHOUT ROWID;
