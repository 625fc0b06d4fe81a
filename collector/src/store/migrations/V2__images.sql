-- Keys that may sign images. A key is never forgotten: what it signed is judged by it for ever.
CREATE TABLE keys (
    id TEXT PRIMARY KEY,
    spki BLOB NOT NULL,
    added_at_ms INTEGER NOT NULL,
    added_by TEXT NOT NULL,
    revoked_at_ms INTEGER,
    revoked_by TEXT,
    revoked_reason TEXT
) STRICT, WITHOUT ROWID;

-- A version is revoked, restored and expires as a whole.
CREATE TABLE versions (
    name TEXT NOT NULL,
    version TEXT NOT NULL,
    added_at_ms INTEGER NOT NULL,
    expires_at_ms INTEGER,
    revoked_at_ms INTEGER,
    revoked_by TEXT,
    revoked_reason TEXT,
    PRIMARY KEY (name, version)
) STRICT, WITHOUT ROWID;

-- One manifest a build; the manifest itself is a file by the name of its digest.
CREATE TABLE builds (
    name TEXT NOT NULL,
    version TEXT NOT NULL,
    build TEXT NOT NULL,
    blake3 BLOB NOT NULL CHECK (length(blake3) = 32),
    sha256 BLOB NOT NULL CHECK (length(sha256) = 32),
    entries INTEGER NOT NULL,
    envelope TEXT NOT NULL,
    statement TEXT NOT NULL,
    artifact TEXT,
    added_at_ms INTEGER NOT NULL,
    added_by TEXT NOT NULL,
    PRIMARY KEY (name, version, build),
    FOREIGN KEY (name, version) REFERENCES versions (name, version)
) STRICT, WITHOUT ROWID;

-- A build's manifest never changes under its name.
CREATE TRIGGER a_build_keeps_its_digest BEFORE UPDATE OF name, version, build, blake3, sha256 ON builds
BEGIN SELECT RAISE(ABORT, 'a build keeps its digest'); END;

CREATE TABLE signers (
    name TEXT NOT NULL,
    version TEXT NOT NULL,
    build TEXT NOT NULL,
    key TEXT NOT NULL REFERENCES keys (id),
    PRIMARY KEY (name, version, build, key),
    FOREIGN KEY (name, version, build) REFERENCES builds (name, version, build)
) STRICT, WITHOUT ROWID;

-- What each channel gave out, the latest last.
CREATE TABLE assignments (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    channel TEXT NOT NULL,
    name TEXT NOT NULL,
    version TEXT NOT NULL,
    at_ms INTEGER NOT NULL,
    by TEXT NOT NULL,
    reason TEXT NOT NULL,
    FOREIGN KEY (name, version) REFERENCES versions (name, version)
) STRICT;
CREATE INDEX assignments_by_channel ON assignments (channel, number);
