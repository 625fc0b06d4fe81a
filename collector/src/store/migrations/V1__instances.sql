-- What the collector makes up its mind about once, by name.
CREATE TABLE settings (
    name TEXT PRIMARY KEY,
    value TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- Operator tokens: only a digest of the secret. No fleets (NULL) means all of them.
CREATE TABLE operators (
    name TEXT PRIMARY KEY,
    digest BLOB NOT NULL UNIQUE,
    role TEXT NOT NULL,
    fleets TEXT,
    created_at_ms INTEGER NOT NULL,
    created_by TEXT NOT NULL,
    revoked_at_ms INTEGER
) STRICT, WITHOUT ROWID;

-- Join tokens: only a digest of the secret.
CREATE TABLE tokens (
    id TEXT PRIMARY KEY,
    digest BLOB NOT NULL UNIQUE,
    fleet TEXT NOT NULL,
    cloud_id TEXT,
    created_at_ms INTEGER NOT NULL,
    created_by TEXT NOT NULL,
    expires_at_ms INTEGER NOT NULL,
    uses_allowed INTEGER NOT NULL,
    uses INTEGER NOT NULL DEFAULT 0
) STRICT, WITHOUT ROWID;

-- `row` is what the big tables below refer to; `id` is what everybody else says.
CREATE TABLE instances (
    row INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    fleet TEXT NOT NULL,
    cloud_id TEXT,
    proven INTEGER NOT NULL,
    token TEXT NOT NULL,
    public_key BLOB NOT NULL,
    standing TEXT NOT NULL DEFAULT 'active',
    standing_reason TEXT,
    standing_since_ms INTEGER,
    hold_reason TEXT,
    hold_by TEXT,
    hold_at_ms INTEGER,
    renewal_until_ms INTEGER,
    enrolled_at_ms INTEGER NOT NULL,
    certificate_until_ms INTEGER NOT NULL,
    -- The image that it enrolled for.
    image_name TEXT,
    image_version TEXT,
    image_build TEXT,
    image_manifest BLOB,
    image_known INTEGER NOT NULL DEFAULT 0,
    -- The latest that it said.
    heard_at_ms INTEGER,
    run BLOB,
    run_number INTEGER NOT NULL DEFAULT 0,
    sequence INTEGER NOT NULL DEFAULT 0,
    generation INTEGER NOT NULL DEFAULT 0,
    phase TEXT,
    boot_id TEXT,
    agent_version TEXT,
    reported_manifest BLOB,
    unverifiable TEXT,
    coverage TEXT,
    first_scan INTEGER NOT NULL DEFAULT 0,
    dropped_moments INTEGER NOT NULL DEFAULT 0,
    agent_clock INTEGER,
    uptime_seconds INTEGER,
    -- What is open, kept beside the rows so that a heartbeat reads none of them.
    open_count INTEGER NOT NULL DEFAULT 0,
    set_digest BLOB,
    overflow INTEGER NOT NULL DEFAULT 0,
    raised_count INTEGER NOT NULL DEFAULT 0,
    severity INTEGER,
    drifted_since_ms INTEGER,
    clean_since_ms INTEGER,
    held_fixed INTEGER NOT NULL DEFAULT 0,
    held_unproven INTEGER NOT NULL DEFAULT 0,
    moment_count INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE INDEX instances_by_fleet ON instances (fleet);
CREATE INDEX instances_by_cloud_id ON instances (cloud_id) WHERE cloud_id IS NOT NULL;
CREATE INDEX instances_by_key ON instances (public_key);

-- The runs of an instance in the order in which they were first heard of.
CREATE TABLE runs (
    instance INTEGER NOT NULL REFERENCES instances (row) ON DELETE CASCADE,
    number INTEGER NOT NULL,
    run BLOB NOT NULL,
    previous BLOB,
    started_at_ms INTEGER NOT NULL,
    sequence INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (instance, run)
) STRICT, WITHOUT ROWID;

-- Which bodies the latest report numbers had, so that a report counts once.
CREATE TABLE numbers (
    instance INTEGER NOT NULL REFERENCES instances (row) ON DELETE CASCADE,
    run_number INTEGER NOT NULL,
    sequence INTEGER NOT NULL,
    body BLOB NOT NULL,
    PRIMARY KEY (instance, run_number, sequence)
) STRICT, WITHOUT ROWID;

-- What is open on an instance: every id, and the whole drift of the gravest 10,000.
-- `source` is who says so: 0 the agent, 1 the collector of its manifest, 2 the collector of its held values.
CREATE TABLE drifts (
    instance INTEGER NOT NULL REFERENCES instances (row) ON DELETE CASCADE,
    source INTEGER NOT NULL,
    id BLOB NOT NULL,
    severity INTEGER NOT NULL,
    opened_at_ms INTEGER NOT NULL,
    drift TEXT,
    PRIMARY KEY (instance, source, id)
) STRICT, WITHOUT ROWID;
CREATE INDEX drifts_by_id ON drifts (id);

CREATE TABLE moments (
    instance INTEGER NOT NULL REFERENCES instances (row) ON DELETE CASCADE,
    run_number INTEGER NOT NULL,
    number INTEGER NOT NULL,
    received_at_ms INTEGER NOT NULL,
    agent_clock_ms INTEGER NOT NULL,
    drift TEXT NOT NULL,
    PRIMARY KEY (instance, run_number, number)
) STRICT, WITHOUT ROWID;

-- Values that are held from first sight on.
CREATE TABLE held (
    instance INTEGER NOT NULL REFERENCES instances (row) ON DELETE CASCADE,
    path BLOB NOT NULL,
    value BLOB,
    length INTEGER,
    PRIMARY KEY (instance, path)
) STRICT, WITHOUT ROWID;

-- Parts of a generation that is not complete; one generation an instance.
CREATE TABLE staging (
    instance INTEGER PRIMARY KEY REFERENCES instances (row) ON DELETE CASCADE,
    run_number INTEGER NOT NULL,
    generation INTEGER NOT NULL,
    count INTEGER NOT NULL,
    bytes INTEGER NOT NULL
) STRICT;
CREATE TABLE staged_parts (
    instance INTEGER NOT NULL REFERENCES instances (row) ON DELETE CASCADE,
    part INTEGER NOT NULL,
    PRIMARY KEY (instance, part)
) STRICT, WITHOUT ROWID;
CREATE TABLE staged_drifts (
    instance INTEGER NOT NULL REFERENCES instances (row) ON DELETE CASCADE,
    id BLOB NOT NULL,
    opened INTEGER NOT NULL,
    severity INTEGER NOT NULL,
    drift TEXT,
    PRIMARY KEY (instance, id)
) STRICT, WITHOUT ROWID;
CREATE TABLE staged_held (
    instance INTEGER NOT NULL REFERENCES instances (row) ON DELETE CASCADE,
    path BLOB NOT NULL,
    held TEXT NOT NULL,
    PRIMARY KEY (instance, path)
) STRICT, WITHOUT ROWID;
