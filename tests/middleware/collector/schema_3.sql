PRAGMA application_id=1685679730;
PRAGMA user_version=3;
BEGIN TRANSACTION;
CREATE TABLE "_sqlite_migrations" (
   "id" INTEGER PRIMARY KEY,
   "migration_set" TEXT,
   "name" TEXT,
   "applied_at" TEXT
);
INSERT INTO "_sqlite_migrations" VALUES(1,'dynpin-collector','001_first_form','2026-11-25 18:54:26.392257+00:00');
INSERT INTO "_sqlite_migrations" VALUES(2,'dynpin-collector','002_totals_and_versions','2026-11-25 18:54:26.393974+00:00');
INSERT INTO "_sqlite_migrations" VALUES(3,'dynpin-collector','003_small_groups','2026-11-25 18:54:26.395511+00:00');
CREATE TABLE agents (
    group_id INTEGER NOT NULL REFERENCES groups (id) ON DELETE CASCADE,
    user_agent TEXT NOT NULL,
    reports INTEGER NOT NULL,
    PRIMARY KEY (group_id, user_agent)
) WITHOUT ROWID;
INSERT INTO "agents" VALUES(1,'agent/1',3);
INSERT INTO "agents" VALUES(2,'testclient',1);
CREATE TABLE diagnoses (
    group_id INTEGER PRIMARY KEY REFERENCES groups (id) ON DELETE CASCADE,
    diagnosis TEXT NOT NULL
);
INSERT INTO "diagnoses" VALUES(1,'{"verdict": "undecided", "title": "Too little to tell", "severity": "unclear", "summary": "There are no pins to compare, or no certificate that can be read.", "advice": "Look at the raw report, and at the program that sent it.", "reasons": ["No certificate of the report can be read."], "notes": [], "failing": null, "root": "unknown", "report-only-inferred": false, "known-pins": [{"pin": "d6qzRu9zOECb90Uez27xWltNsj0e1Md7GkYYkVoZWmM=", "key": null}], "served": [], "validated": []}');
INSERT INTO "diagnoses" VALUES(2,'{"verdict": "undecided", "title": "Too little to tell", "severity": "unclear", "summary": "There are no pins to compare, or no certificate that can be read.", "advice": "Look at the raw report, and at the program that sent it.", "reasons": ["The report names no known pin."], "notes": [], "failing": null, "root": "unknown", "report-only-inferred": false, "known-pins": [], "served": [], "validated": []}');
CREATE TABLE facts (name TEXT PRIMARY KEY, value) WITHOUT ROWID;
CREATE TABLE groups (
    id INTEGER PRIMARY KEY,
    key TEXT NOT NULL UNIQUE,
    host TEXT NOT NULL,
    noted_host TEXT NOT NULL,
    port INTEGER,
    mode TEXT NOT NULL,
    token TEXT NOT NULL,
    known_pins TEXT NOT NULL,
    validated_pins TEXT NOT NULL,
    first_seen REAL NOT NULL,
    last_seen REAL NOT NULL,
    reports INTEGER NOT NULL,
    issuer TEXT,
    verdict TEXT,
    severity TEXT,
    state TEXT NOT NULL DEFAULT 'open',
    state_at REAL,
    alerted_at REAL
, judged_with TEXT NOT NULL DEFAULT '');
INSERT INTO "groups" VALUES(1,'1aa54b67850cfada0e721330bdb259a2','a.test','a.test',443,'enforce','demo','["d6qzRu9zOECb90Uez27xWltNsj0e1Md7GkYYkVoZWmM="]','[]',1800000000.0,1800000000.0,3,'','undecided','unclear','open',NULL,NULL,'3bc23a89dffe6540');
INSERT INTO "groups" VALUES(2,'75829a65f22c55df619ac85707692a62','b.a.test','',NULL,'report-only','shop','[]','[]',1800000000.0,1800000000.0,1,'','undecided','unclear','open',NULL,NULL,'3bc23a89dffe6540');
CREATE TABLE outcomes (
    hour INTEGER NOT NULL,
    token TEXT NOT NULL,
    outcome TEXT NOT NULL,
    reason TEXT NOT NULL,
    count INTEGER NOT NULL,
    PRIMARY KEY (hour, token, outcome, reason)
) WITHOUT ROWID;
INSERT INTO "outcomes" VALUES(500000,'demo','accepted','',3);
INSERT INTO "outcomes" VALUES(500000,'demo','rejected','not-json',1);
INSERT INTO "outcomes" VALUES(500000,'shop','accepted','',1);
CREATE TABLE pins (
    pin TEXT NOT NULL,
    group_id INTEGER NOT NULL REFERENCES groups (id) ON DELETE CASCADE,
    place TEXT NOT NULL,
    PRIMARY KEY (pin, group_id, place)
) WITHOUT ROWID;
INSERT INTO "pins" VALUES('d6qzRu9zOECb90Uez27xWltNsj0e1Md7GkYYkVoZWmM=',1,'known');
CREATE TABLE rates (
    group_id INTEGER NOT NULL REFERENCES groups (id) ON DELETE CASCADE,
    hour INTEGER NOT NULL,
    reports INTEGER NOT NULL,
    PRIMARY KEY (group_id, hour)
) WITHOUT ROWID;
INSERT INTO "rates" VALUES(1,500000,3);
INSERT INTO "rates" VALUES(2,500000,1);
CREATE TABLE reports (
    id INTEGER PRIMARY KEY,
    group_id INTEGER NOT NULL REFERENCES groups (id) ON DELETE CASCADE,
    received_at REAL NOT NULL,
    observed_at REAL,
    expires_at REAL,
    token TEXT NOT NULL,
    source TEXT NOT NULL,
    user_agent TEXT NOT NULL,
    flags TEXT NOT NULL
);
INSERT INTO "reports" VALUES(1,1,1800000000.0,1799999400.0,1398948050.0,'demo','','agent/1','no-served-chain no-validated-chain');
INSERT INTO "reports" VALUES(2,1,1800000000.0,1799999460.0,1398948050.0,'demo','','agent/1','no-served-chain no-validated-chain');
INSERT INTO "reports" VALUES(3,1,1800000000.0,1799999520.0,1398948050.0,'demo','','agent/1','no-served-chain no-validated-chain');
INSERT INTO "reports" VALUES(4,2,1800000000.0,NULL,NULL,'shop','','testclient','bad-known-pin no-served-chain no-validated-chain unknown-members no-port no-noted-hostname no-include-subdomains no-date-time no-expiration');
CREATE TABLE samples (
    report_id INTEGER PRIMARY KEY REFERENCES reports (id) ON DELETE CASCADE,
    body TEXT NOT NULL
);
INSERT INTO "samples" VALUES(1,'{"date-time":"2027-01-15T07:50:00Z","hostname":"a.test","port":443,"effective-expiration-date":"2014-05-01T12:40:50Z","include-subdomains":false,"noted-hostname":"a.test","served-certificate-chain":[],"validated-certificate-chain":[],"known-pins":["pin-sha256=\"d6qzRu9zOECb90Uez27xWltNsj0e1Md7GkYYkVoZWmM=\""]}');
INSERT INTO "samples" VALUES(2,'{"date-time":"2027-01-15T07:51:00Z","hostname":"a.test","port":443,"effective-expiration-date":"2014-05-01T12:40:50Z","include-subdomains":false,"noted-hostname":"a.test","served-certificate-chain":[],"validated-certificate-chain":[],"known-pins":["pin-sha256=\"d6qzRu9zOECb90Uez27xWltNsj0e1Md7GkYYkVoZWmM=\""]}');
INSERT INTO "samples" VALUES(3,'{"date-time":"2027-01-15T07:52:00Z","hostname":"a.test","port":443,"effective-expiration-date":"2014-05-01T12:40:50Z","include-subdomains":false,"noted-hostname":"a.test","served-certificate-chain":[],"validated-certificate-chain":[],"known-pins":["pin-sha256=\"d6qzRu9zOECb90Uez27xWltNsj0e1Md7GkYYkVoZWmM=\""]}');
INSERT INTO "samples" VALUES(4,'{"hostname": "b.a.test",  "x": 1e999, "known-pins": ["ümlaut"]}');
CREATE TABLE sessions (
    id TEXT PRIMARY KEY,
    expires_at REAL NOT NULL
) WITHOUT ROWID;
CREATE TABLE tokens (
    token TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    hosts TEXT NOT NULL,
    created_at REAL NOT NULL,
    revoked_at REAL
) WITHOUT ROWID;
INSERT INTO "tokens" VALUES('shop','Shop','["a.test"]',1800000000.0,NULL);
CREATE TABLE totals (
    hour INTEGER NOT NULL,
    mode TEXT NOT NULL,
    verdict TEXT NOT NULL,
    state TEXT NOT NULL,
    token TEXT NOT NULL,
    reports INTEGER NOT NULL,
    PRIMARY KEY (hour, mode, verdict, state, token)
) WITHOUT ROWID;
INSERT INTO "totals" VALUES(500000,'enforce','','open','demo',0);
INSERT INTO "totals" VALUES(500000,'enforce','undecided','open','demo',3);
INSERT INTO "totals" VALUES(500000,'report-only','','open','shop',0);
INSERT INTO "totals" VALUES(500000,'report-only','undecided','open','shop',1);
CREATE UNIQUE INDEX "idx__sqlite_migrations_migration_set_name"
    ON "_sqlite_migrations" ("migration_set", "name");
CREATE INDEX groups_by_last_seen ON groups (last_seen);
CREATE INDEX groups_by_first_seen ON groups (first_seen);
CREATE INDEX groups_by_host ON groups (host, last_seen);
CREATE INDEX groups_by_noted_host ON groups (noted_host, last_seen);
CREATE INDEX groups_by_verdict ON groups (verdict, last_seen);
CREATE INDEX groups_by_issuer ON groups (issuer, last_seen);
CREATE INDEX groups_unannounced ON groups (id) WHERE alerted_at IS NULL;
CREATE INDEX groups_without_verdict ON groups (id) WHERE verdict IS NULL;
CREATE INDEX pins_by_group ON pins (group_id);
CREATE INDEX reports_by_group ON reports (group_id, received_at);
CREATE INDEX reports_by_time ON reports (received_at);
CREATE INDEX rates_by_hour ON rates (hour, group_id, reports);
CREATE VIEW readable_reports AS
    SELECT reports.id, datetime(received_at, 'unixepoch') AS received, datetime(observed_at, 'unixepoch') AS observed,
           groups.host, groups.noted_host, groups.port, groups.mode, groups.verdict, groups.issuer,
           reports.token, source, user_agent, flags, samples.body
    FROM reports JOIN groups ON groups.id = reports.group_id LEFT JOIN samples ON samples.report_id = reports.id;
CREATE TRIGGER totals_follow_groups AFTER UPDATE OF verdict, state ON groups
WHEN old.verdict IS NOT new.verdict OR old.state != new.state BEGIN
    INSERT INTO totals
        SELECT hour, old.mode, coalesce(old.verdict, ''), old.state, old.token, -reports FROM rates
        WHERE group_id = old.id ON CONFLICT DO UPDATE SET reports = reports + excluded.reports;
    INSERT INTO totals
        SELECT hour, new.mode, coalesce(new.verdict, ''), new.state, new.token, reports FROM rates
        WHERE group_id = new.id ON CONFLICT DO UPDATE SET reports = reports + excluded.reports;
END;
CREATE TRIGGER totals_forget_groups BEFORE DELETE ON groups BEGIN
    INSERT INTO totals
        SELECT hour, old.mode, coalesce(old.verdict, ''), old.state, old.token, -reports FROM rates
        WHERE group_id = old.id ON CONFLICT DO UPDATE SET reports = reports + excluded.reports;
END;
CREATE INDEX groups_by_judged_with ON groups (judged_with);
CREATE INDEX groups_in_short ON groups (last_seen, first_seen, host, noted_host, mode, verdict, state, token, issuer, reports);
COMMIT;
