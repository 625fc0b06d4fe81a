-- What builds are called where they run: statements over the digest of a build, as many as its platforms have.
CREATE TABLE artifacts (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    name TEXT NOT NULL,
    version TEXT NOT NULL,
    build TEXT NOT NULL,
    platform TEXT NOT NULL,
    format TEXT NOT NULL,
    statement TEXT NOT NULL,
    envelope TEXT,
    added_at_ms INTEGER NOT NULL,
    added_by TEXT NOT NULL,
    UNIQUE (name, version, build, statement),
    FOREIGN KEY (name, version, build) REFERENCES builds (name, version, build)
) STRICT;

CREATE TABLE artifact_signers (
    artifact INTEGER NOT NULL REFERENCES artifacts (number),
    key TEXT NOT NULL REFERENCES keys (id),
    PRIMARY KEY (artifact, key)
) STRICT, WITHOUT ROWID;

-- An id is of one build for ever. `folded` is in lower case: Azure's resource ids come in any.
CREATE TABLE artifact_ids (
    folded TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    version TEXT NOT NULL,
    build TEXT NOT NULL,
    FOREIGN KEY (name, version, build) REFERENCES builds (name, version, build)
) STRICT, WITHOUT ROWID;

CREATE TRIGGER an_artifact_stays_what_it_is BEFORE UPDATE ON artifact_ids
BEGIN SELECT RAISE(ABORT, 'an artifact is of one build for ever'); END;

-- It held whatever was handed in, and nothing read it.
ALTER TABLE builds DROP COLUMN artifact;

-- What the host's package database says of a drift: no part of its id, its severity or its count.
ALTER TABLE drifts ADD COLUMN package TEXT;
ALTER TABLE staged_drifts ADD COLUMN package TEXT;
