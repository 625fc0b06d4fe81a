-- Instances that are to be replaced. A mark that closes leaves the table; the ledger remembers it.
CREATE TABLE marks (
    instance TEXT PRIMARY KEY REFERENCES instances (id),
    fleet TEXT NOT NULL,
    reason TEXT NOT NULL,
    image TEXT,
    opened_at_ms INTEGER NOT NULL,
    declined TEXT
) STRICT, WITHOUT ROWID;

CREATE TABLE orders (
    -- The content, which never changes.
    id TEXT PRIMARY KEY,
    generation INTEGER NOT NULL,
    fleet TEXT NOT NULL,
    instance TEXT NOT NULL REFERENCES instances (id),
    cloud_id TEXT,
    image TEXT,
    replacer TEXT NOT NULL,
    reason TEXT NOT NULL,
    planned_at_ms INTEGER NOT NULL,
    -- Where it is.
    state TEXT NOT NULL,
    why TEXT NOT NULL,
    grace_at_ms INTEGER,
    approval TEXT,
    executing_at_ms INTEGER,
    replacement TEXT,
    replaced_at_ms INTEGER,
    over_at_ms INTEGER,
    UNIQUE (instance, generation)
) STRICT, WITHOUT ROWID;

CREATE UNIQUE INDEX one_open_order_an_instance ON orders (instance) WHERE state NOT IN ('verified', 'cancelled');
CREATE UNIQUE INDEX one_order_a_replacement ON orders (replacement) WHERE state <> 'cancelled';
CREATE INDEX orders_by_fleet ON orders (fleet, planned_at_ms);

CREATE TRIGGER an_order_is_immutable
BEFORE UPDATE OF id, generation, fleet, instance, cloud_id, image, replacer, reason, planned_at_ms ON orders
BEGIN SELECT RAISE(ABORT, 'the content of an order never changes'); END;

CREATE TRIGGER an_order_is_never_forgotten BEFORE DELETE ON orders
BEGIN SELECT RAISE(ABORT, 'an order is never forgotten'); END;

-- Fleets in which nothing is open are not judged: a large clean fleet costs the judge nothing.
CREATE INDEX instances_with_drift ON instances (fleet) WHERE open_count + raised_count > 0;
