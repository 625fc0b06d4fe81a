-- The ledger: append-only, hash-chained.
-- `entry` is the exact text that was hashed; what is searched for is derived from it, so the two cannot disagree.
CREATE TABLE ledger (
    sequence INTEGER PRIMARY KEY,
    entry    TEXT NOT NULL,
    hash     BLOB NOT NULL CHECK (length(hash) = 32),
    kind     TEXT GENERATED ALWAYS AS (json_extract(entry, '$.kind')) VIRTUAL,
    fleet    TEXT GENERATED ALWAYS AS (json_extract(entry, '$.fleet')) VIRTUAL,
    subject  TEXT GENERATED ALWAYS AS (json_extract(entry, '$.subject')) VIRTUAL
) STRICT;

CREATE INDEX ledger_by_fleet ON ledger (fleet, sequence);
CREATE INDEX ledger_by_subject ON ledger (subject, sequence);

CREATE TRIGGER ledger_is_never_altered BEFORE UPDATE ON ledger
BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END;

CREATE TRIGGER ledger_is_never_shortened BEFORE DELETE ON ledger
BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END;

CREATE TRIGGER ledger_only_grows_at_its_end BEFORE INSERT ON ledger
WHEN NEW.sequence IS NOT (SELECT coalesce(max(sequence), 0) + 1 FROM ledger)
BEGIN SELECT RAISE(ABORT, 'the ledger only grows at its end'); END;
