-- Moments are milliseconds since the epoch, amounts are ledger units (micros or counts).
-- The constraints are the last wall: they hold whatever the program above them does.
-- Columns that say "text" are texts as `text.rs` stores them: a byte that says how, then the text or what it was packed to.

CREATE TABLE meta(k TEXT PRIMARY KEY, v ANY NOT NULL) STRICT, WITHOUT ROWID;

CREATE TABLE budget(
  id BLOB PRIMARY KEY CHECK(length(id)=16),
  owner TEXT NOT NULL, name TEXT NOT NULL,
  unit INTEGER NOT NULL CHECK(unit IN (0,1)),          -- 0 micros, 1 count
  kind INTEGER NOT NULL CHECK(kind IN (0,1,2,3)),      -- 0 lifetime, 1 rolling, 2 day, 3 month
  zone TEXT, width INTEGER CHECK(width>0),             -- width in seconds
  created INTEGER NOT NULL,
  CHECK((kind=1)=(width IS NOT NULL)), CHECK((kind IN (2,3))=(zone IS NOT NULL))
) STRICT, WITHOUT ROWID;
CREATE INDEX budget_named ON budget(owner,name,unit);

-- One row per (budget, window). `lim` is the limit the last grant stated.
CREATE TABLE budget_window(
  budget BLOB NOT NULL REFERENCES budget(id), win INTEGER NOT NULL CHECK(win>=0),
  lim INTEGER NOT NULL CHECK(lim BETWEEN 0 AND 4000000000000000000),
  held INTEGER NOT NULL DEFAULT 0 CHECK(held>=0),
  spent INTEGER NOT NULL DEFAULT 0 CHECK(spent>=0),
  mark INTEGER NOT NULL DEFAULT 0,   -- rolling: the latest moment seen; never decreases
  alerted INTEGER, reviewed INTEGER, -- the threshold that was latched
  seeded INTEGER NOT NULL DEFAULT 0 CHECK(seeded>=0), -- of what is spent: taken over when the budget got this window
  shared INTEGER NOT NULL DEFAULT 0 CHECK(shared IN (0,1)), -- owner, name and unit have another window too
  seq INTEGER NOT NULL DEFAULT 0,    -- holds in those windows up to this record are accounted for
  PRIMARY KEY(budget,win), CHECK(held+spent<=lim)
) STRICT, WITHOUT ROWID;

CREATE TRIGGER window_mark BEFORE UPDATE OF mark ON budget_window WHEN NEW.mark<OLD.mark
BEGIN SELECT RAISE(ABORT,'the watermark of a window never goes back'); END;

-- The ring of a rolling window: what was spent, by the bucket of the decision.
CREATE TABLE bucket(
  budget BLOB NOT NULL, start INTEGER NOT NULL, spent INTEGER NOT NULL CHECK(spent>=0),
  seeded INTEGER NOT NULL DEFAULT 0 CHECK(seeded BETWEEN 0 AND spent), -- of that: taken over from another window
  PRIMARY KEY(budget,start)
) STRICT, WITHOUT ROWID;

-- A list of more than two after `IN` costs a temporary table whenever a row is written: states are compared one by one.
CREATE TABLE payment(
  id BLOB NOT NULL PRIMARY KEY CHECK(length(id)=16),
  workspace TEXT NOT NULL, agent TEXT NOT NULL, purchase TEXT NOT NULL,
  attempt INTEGER NOT NULL CHECK(attempt>0),
  fingerprint BLOB NOT NULL CHECK(length(fingerprint)=32),
  session BLOB CHECK(length(session)=16),
  method TEXT NOT NULL, host TEXT NOT NULL, path TEXT NOT NULL, pay_to TEXT NOT NULL,
  network TEXT NOT NULL, asset TEXT NOT NULL,
  amount BLOB NOT NULL CHECK(length(amount)=32),
  value INTEGER NOT NULL CHECK(value BETWEEN 0 AND 1000000000000000),
  payer BLOB, nonce BLOB CHECK(length(nonce)=32), valid_before INTEGER, payload BLOB, -- text; written once
  signature BLOB CHECK(length(signature)=65),                                        -- written once
  state INTEGER NOT NULL CHECK(
    state=1 OR state=2 OR state=4 OR state=5 OR state=6 OR state=7 OR state=8 OR state=9 OR state=10 OR state=11),
  version INTEGER NOT NULL DEFAULT 0,
  epoch INTEGER NOT NULL,           -- of the process that wrote the payload
  signed INTEGER,                   -- when the payload was written
  counted INTEGER NOT NULL,         -- the moment it counts at in histories
  delivered INTEGER NOT NULL DEFAULT 0 CHECK(delivered IN (0,1)),
  facts BLOB NOT NULL,              -- text
  decision BLOB NOT NULL, approval BLOB,
  refusal TEXT, repeats INTEGER NOT NULL DEFAULT 0,
  txhash TEXT,                      -- said to have settled it; proven only where something is redeemed
  evidence TEXT,                    -- what proved it, or what the latest word on it rests on
  redeemed BLOB CHECK(length(redeemed)=32),
  created INTEGER NOT NULL, updated INTEGER NOT NULL,
  CHECK((payload IS NULL)=(nonce IS NULL)), CHECK((payload IS NULL)=(payer IS NULL)),
  CHECK((payload IS NULL)=(valid_before IS NULL)), CHECK((payload IS NULL)=(signed IS NULL)),
  CHECK(payload IS NOT NULL
    OR NOT (state=4 OR state=5 OR state=6 OR state=7 OR state=9 OR state=10 OR state=11)),
  CHECK((state=7 OR state=9 OR state=10)=(redeemed IS NOT NULL)), CHECK(redeemed IS NULL OR redeemed<=amount),
  CHECK(redeemed IS NULL OR (txhash IS NOT NULL AND evidence IS NOT NULL)),
  CHECK(state NOT IN (1,2) OR payload IS NULL),
  CHECK(signature IS NULL OR payload IS NOT NULL)
) STRICT;
CREATE UNIQUE INDEX payment_attempt ON payment(workspace,agent,purchase,attempt);
CREATE UNIQUE INDEX payment_live ON payment(workspace,agent,purchase) WHERE state NOT IN (1,8);
CREATE UNIQUE INDEX payment_nonce ON payment(nonce,payer) WHERE nonce IS NOT NULL;
CREATE INDEX payment_owner ON payment(workspace,agent,state,id);
CREATE INDEX payment_state ON payment(state,id);
CREATE INDEX payment_session ON payment(session,id) WHERE session IS NOT NULL;
CREATE INDEX payment_at_seller ON payment(workspace,host,state,signed)
  WHERE state=4 OR state=5 OR state=6 OR state=11;
CREATE INDEX payment_at_payee ON payment(workspace,pay_to,state,signed)
  WHERE state=4 OR state=5 OR state=6 OR state=11;
CREATE INDEX payment_by_agent ON payment(workspace,agent,state,signed)
  WHERE state=4 OR state=5 OR state=6 OR state=11;
CREATE INDEX payment_unfinished ON payment(workspace,agent,fingerprint,id)
  WHERE state=2 OR (delivered=0 AND (state=4 OR state=5 OR state=6 OR state=7 OR state=10 OR state=11));
CREATE INDEX payment_repeat ON payment(workspace,agent,fingerprint,counted) WHERE state NOT IN (1,8);
CREATE INDEX payment_denied ON payment(workspace,agent,fingerprint,created) WHERE state=1;

CREATE TRIGGER payment_payload BEFORE UPDATE OF payload,nonce,payer,valid_before ON payment
WHEN OLD.payload IS NOT NULL AND (NEW.payload IS NOT OLD.payload OR NEW.nonce IS NOT OLD.nonce
  OR NEW.payer IS NOT OLD.payer OR NEW.valid_before IS NOT OLD.valid_before)
BEGIN SELECT RAISE(ABORT,'a payload is written once'); END;
CREATE TRIGGER payment_signature BEFORE UPDATE OF signature ON payment
WHEN OLD.signature IS NOT NULL AND NEW.signature IS NOT OLD.signature
BEGIN SELECT RAISE(ABORT,'a signature is written once'); END;
CREATE TRIGGER payment_redeemed BEFORE UPDATE OF redeemed ON payment
WHEN OLD.redeemed IS NOT NULL AND NEW.redeemed IS NOT OLD.redeemed
BEGIN SELECT RAISE(ABORT,'what was redeemed is written once'); END;
CREATE TRIGGER payment_born BEFORE INSERT ON payment WHEN NEW.state<>1 AND NEW.state<>2 AND NEW.state<>4
BEGIN SELECT RAISE(ABORT,'no payment begins in this state'); END;
-- The table of transitions: 204 is from 2 to 4. A test compares it with the program's.
CREATE TRIGGER payment_step BEFORE UPDATE OF state ON payment
WHEN NEW.state IS NOT OLD.state AND OLD.state*100+NEW.state NOT IN
  (204,208,405,406,407,408,411,506,507,508,511,605,607,608,611,709,710,910,1007,1009,1107,1108)
BEGIN SELECT RAISE(ABORT,'no such step in the life of a payment'); END;
CREATE TRIGGER payment_kept BEFORE DELETE ON payment
BEGIN SELECT RAISE(ABORT,'payments are not deleted'); END;

-- Thresholds that were reached, written with the grant that reached them, and whether somebody was told.
CREATE TABLE alert(
  id INTEGER PRIMARY KEY, payment BLOB NOT NULL REFERENCES payment(id),
  budget TEXT NOT NULL, unit INTEGER NOT NULL CHECK(unit IN (0,1)),
  threshold INTEGER NOT NULL, used INTEGER NOT NULL, lim INTEGER NOT NULL, at INTEGER NOT NULL,
  due INTEGER NOT NULL, state INTEGER NOT NULL DEFAULT 0 CHECK(state IN (0,1,2)), -- waiting, delivered, given up
  attempts INTEGER NOT NULL DEFAULT 0, tried INTEGER, outcome TEXT,
  CHECK((attempts=0)=(tried IS NULL)), CHECK((tried IS NULL)=(outcome IS NULL))
) STRICT;
CREATE INDEX alert_due ON alert(due) WHERE state=0;
CREATE TRIGGER alert_final BEFORE UPDATE ON alert WHEN OLD.state<>0
BEGIN SELECT RAISE(ABORT,'an alert is delivered or given up once'); END;

-- What a payment reserves, goes back to, or was spent from. Always the window of the decision.
CREATE TABLE hold(
  payment BLOB NOT NULL REFERENCES payment(id), budget BLOB NOT NULL, win INTEGER NOT NULL,
  ord INTEGER NOT NULL,
  amount INTEGER NOT NULL CHECK(amount BETWEEN 1 AND 1000000000000000),
  lim INTEGER NOT NULL, alert INTEGER, review INTEGER,
  bucket INTEGER,                   -- rolling: the bucket of the decision
  due INTEGER,                      -- rolling: when it ages, once a payload exists
  aged INTEGER NOT NULL DEFAULT 0 CHECK(aged IN (0,1)), -- already counted as spent
  open INTEGER NOT NULL DEFAULT 1 CHECK(open IN (0,1)),
  settled INTEGER CHECK(settled BETWEEN 0 AND amount),
  refunded INTEGER NOT NULL DEFAULT 0 CHECK(refunded>=0 AND refunded<=coalesce(settled,0)), -- credited since
  at INTEGER NOT NULL,
  seq INTEGER NOT NULL,             -- the record that placed it
  PRIMARY KEY(payment,budget,win),
  FOREIGN KEY(budget,win) REFERENCES budget_window(budget,win),
  CHECK((open=1)=(settled IS NULL))
) STRICT, WITHOUT ROWID;
CREATE INDEX hold_due ON hold(budget,due) WHERE open=1 AND aged=0 AND due IS NOT NULL;
CREATE INDEX hold_history ON hold(budget,seq);

-- What came back. Only what a chain shows is credited to budgets.
CREATE TABLE refund(
  payment BLOB NOT NULL REFERENCES payment(id), n INTEGER NOT NULL, network TEXT NOT NULL,
  amount BLOB NOT NULL CHECK(length(amount)=32),
  txhash TEXT, log INTEGER, block INTEGER, -- a finalized transfer,
  by TEXT, reference TEXT,                 -- or an operator's word
  at INTEGER NOT NULL,
  PRIMARY KEY(payment,n),
  CHECK((txhash IS NULL)=(log IS NULL)), CHECK((txhash IS NULL)=(block IS NULL)),
  CHECK((txhash IS NULL)=(by IS NOT NULL)), CHECK((by IS NULL)=(reference IS NULL))
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX refund_transfer ON refund(network,txhash,log) WHERE txhash IS NOT NULL;
CREATE UNIQUE INDEX refund_reference ON refund(payment,reference) WHERE reference IS NOT NULL;
CREATE TRIGGER refund_kept BEFORE DELETE ON refund BEGIN SELECT RAISE(ABORT,'refunds are not deleted'); END;
CREATE TRIGGER refund_unchanged BEFORE UPDATE ON refund BEGIN SELECT RAISE(ABORT,'refunds are not changed'); END;

-- How far each network is final, as its nodes told it.
CREATE TABLE finalized(
  network TEXT PRIMARY KEY, block INTEGER NOT NULL, hash TEXT NOT NULL, time INTEGER NOT NULL, at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TRIGGER finalized_forward BEFORE UPDATE ON finalized
WHEN NEW.network IS NOT OLD.network OR NEW.block<=OLD.block OR NEW.time<OLD.time
BEGIN SELECT RAISE(ABORT,'finality never goes back'); END;
CREATE TRIGGER finalized_kept BEFORE DELETE ON finalized
BEGIN SELECT RAISE(ABORT,'finality never goes back'); END;

CREATE TABLE decision(
  id BLOB NOT NULL PRIMARY KEY CHECK(length(id)=16),
  payment BLOB NOT NULL REFERENCES payment(id), ord INTEGER NOT NULL CHECK(ord>=0),
  request BLOB NOT NULL, judgement BLOB NOT NULL, reasons BLOB NOT NULL, -- texts
  verdict TEXT NOT NULL, refusal TEXT,
  seq INTEGER NOT NULL              -- the record that vouches for it
) STRICT;
CREATE UNIQUE INDEX decision_order ON decision(payment,ord);

-- A payment's history; `n` is the payment's version.
CREATE TABLE step(
  payment BLOB NOT NULL REFERENCES payment(id), n INTEGER NOT NULL,
  at INTEGER NOT NULL, state INTEGER NOT NULL, event TEXT, why TEXT NOT NULL,
  PRIMARY KEY(payment,n)
) STRICT, WITHOUT ROWID;

CREATE TABLE approval(
  id BLOB NOT NULL PRIMARY KEY CHECK(length(id)=16),
  payment BLOB NOT NULL REFERENCES payment(id),
  state INTEGER NOT NULL CHECK(state IN (0,1,2,3,4)), -- pending approved denied expired used
  frozen TEXT NOT NULL, shown TEXT NOT NULL, terms TEXT NOT NULL,
  created INTEGER NOT NULL, expires INTEGER NOT NULL
) STRICT;
CREATE INDEX approval_state ON approval(state,id);
CREATE INDEX approval_expires ON approval(expires) WHERE state IN (0,1);
CREATE TRIGGER approval_final BEFORE UPDATE OF state ON approval
WHEN OLD.state IN (2,3,4) AND NEW.state IS NOT OLD.state
BEGIN SELECT RAISE(ABORT,'an approval is decided and used once'); END;

CREATE TABLE vote(
  approval BLOB NOT NULL REFERENCES approval(id), operator TEXT NOT NULL,
  ord INTEGER NOT NULL CHECK(ord>=0), -- who spoke first
  approve INTEGER NOT NULL CHECK(approve IN (0,1)), at INTEGER NOT NULL, note TEXT NOT NULL,
  groups TEXT NOT NULL, channel TEXT NOT NULL,
  message TEXT,                       -- the signed message that said it
  PRIMARY KEY(approval,operator)
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX vote_order ON vote(approval,ord);
CREATE UNIQUE INDEX vote_message ON vote(operator,message) WHERE message IS NOT NULL; -- counted once

-- What a receiver is told of approvals. `body` is the approval and the payment's facts as they were then.
CREATE TABLE notice(
  id INTEGER PRIMARY KEY, approval BLOB NOT NULL REFERENCES approval(id),
  event INTEGER NOT NULL CHECK(event IN (0,1,2)), -- requested decided expired
  body TEXT NOT NULL, at INTEGER NOT NULL,
  due INTEGER NOT NULL, state INTEGER NOT NULL DEFAULT 0 CHECK(state IN (0,1,2)), -- waiting, delivered, given up
  attempts INTEGER NOT NULL DEFAULT 0, tried INTEGER, outcome TEXT,
  CHECK((attempts=0)=(tried IS NULL)), CHECK((tried IS NULL)=(outcome IS NULL))
) STRICT;
CREATE INDEX notice_due ON notice(due) WHERE state=0;
CREATE TRIGGER notice_final BEFORE UPDATE ON notice WHEN OLD.state<>0
BEGIN SELECT RAISE(ABORT,'a notice is delivered or given up once'); END;

-- The rule that somebody proposed with an approval, as its readers see it.
CREATE TABLE proposal(
  approval BLOB NOT NULL PRIMARY KEY REFERENCES approval(id),
  by TEXT NOT NULL, document TEXT NOT NULL, at INTEGER NOT NULL
) STRICT;

CREATE TABLE session(
  id BLOB NOT NULL PRIMARY KEY CHECK(length(id)=16), token TEXT NOT NULL UNIQUE,
  agent TEXT NOT NULL, opener TEXT NOT NULL, body TEXT NOT NULL,
  lim INTEGER NOT NULL CHECK(lim BETWEEN 0 AND 1000000000000000), -- what it may spend
  created INTEGER NOT NULL, expires INTEGER NOT NULL, closed INTEGER,
  count INTEGER NOT NULL DEFAULT 0, value INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE INDEX session_created ON session(created);
CREATE INDEX session_by_opener ON session(opener,created);
CREATE INDEX session_of_agent ON session(agent,created);
CREATE INDEX session_open ON session(expires) WHERE closed IS NULL;

CREATE TABLE suspension(
  scope TEXT NOT NULL, name TEXT NOT NULL, by TEXT NOT NULL, reason TEXT NOT NULL, at INTEGER NOT NULL,
  PRIMARY KEY(scope,name)
) STRICT, WITHOUT ROWID;

-- Advisory figures for policies, kept as they change so that reading them never walks payments.
CREATE TABLE tally(                 -- by minute, two days of them
  kind INTEGER NOT NULL CHECK(kind IN (0,1)), -- 0 agent, 1 seller host
  workspace TEXT NOT NULL, name TEXT NOT NULL, minute INTEGER NOT NULL,
  count INTEGER NOT NULL, value INTEGER NOT NULL,
  PRIMARY KEY(kind,workspace,name,minute)
) STRICT, WITHOUT ROWID;
CREATE TABLE seller(
  workspace TEXT NOT NULL, host TEXT NOT NULL,
  count INTEGER NOT NULL DEFAULT 0, value INTEGER NOT NULL DEFAULT 0, -- not denied, not released
  first_paid INTEGER, last_paid INTEGER, last_pay_to TEXT,            -- settled only
  judged INTEGER NOT NULL DEFAULT 0, useful INTEGER NOT NULL DEFAULT 0,             -- settled only, by people
  agent_judged INTEGER NOT NULL DEFAULT 0, agent_useful INTEGER NOT NULL DEFAULT 0, -- and by agents
  PRIMARY KEY(workspace,host)
) STRICT, WITHOUT ROWID;
CREATE TABLE payee(
  workspace TEXT NOT NULL, pay_to TEXT NOT NULL, first_paid INTEGER NOT NULL,
  PRIMARY KEY(workspace,pay_to)
) STRICT, WITHOUT ROWID;
CREATE TABLE price(
  workspace TEXT NOT NULL, host TEXT NOT NULL, method TEXT NOT NULL, path TEXT NOT NULL,
  value INTEGER NOT NULL, at INTEGER NOT NULL,
  PRIMARY KEY(workspace,host,method,path)
) STRICT, WITHOUT ROWID;

CREATE TABLE approved(              -- what a person last approved
  workspace TEXT NOT NULL, host TEXT NOT NULL, method TEXT NOT NULL, path TEXT NOT NULL,
  pay_to TEXT NOT NULL, value INTEGER NOT NULL, at INTEGER NOT NULL,
  PRIMARY KEY(workspace,host,method,path)
) STRICT, WITHOUT ROWID;

-- What became of what was bought: one word of the agent's, one of the people's.
CREATE TABLE use_report(
  payment BLOB NOT NULL REFERENCES payment(id),
  reporter INTEGER NOT NULL CHECK(reporter IN (0,1)), -- 0 agent, 1 person
  by TEXT NOT NULL, used TEXT NOT NULL, useful INTEGER NOT NULL CHECK(useful IN (0,1)),
  note TEXT, artifact TEXT, at INTEGER NOT NULL,
  words INTEGER NOT NULL DEFAULT 1,  -- how often it was said anew
  PRIMARY KEY(payment,reporter)
) STRICT, WITHOUT ROWID;

CREATE TABLE blob(digest BLOB NOT NULL PRIMARY KEY CHECK(length(digest)=32), bytes BLOB NOT NULL) STRICT;

-- What served since when. The last row is what serves; the numbers have no gap.
CREATE TABLE generation(
  number INTEGER PRIMARY KEY CHECK(number>0), at INTEGER NOT NULL,
  origin TEXT NOT NULL CHECK(origin IN ('file','api','rollback','restart')),
  by TEXT NOT NULL, restores INTEGER REFERENCES generation(number),
  whole INTEGER NOT NULL CHECK(whole IN (0,1)),
  config TEXT NOT NULL, policies TEXT NOT NULL, mandates TEXT NOT NULL, mandates_stand_for TEXT
) STRICT;
CREATE TRIGGER generation_next BEFORE INSERT ON generation
WHEN NEW.number IS NOT (SELECT coalesce(max(number),0)+1 FROM generation)
BEGIN SELECT RAISE(ABORT,'generations are counted without a gap'); END;
CREATE TRIGGER generation_kept BEFORE DELETE ON generation
BEGIN SELECT RAISE(ABORT,'generations are not deleted'); END;
CREATE TRIGGER generation_unchanged BEFORE UPDATE ON generation
BEGIN SELECT RAISE(ABORT,'generations are not changed'); END;

-- The log of records; its format is documented in docs/ledger.md. `leaf` is the hash of the record, which is the text
-- in `body`; the other columns repeat what the record says, and whoever checks the log compares them.
CREATE TABLE audit(
  seq INTEGER PRIMARY KEY, at INTEGER NOT NULL, kind TEXT NOT NULL,
  payment BLOB CHECK(length(payment)=16), -- whose record it is
  body BLOB NOT NULL, leaf BLOB NOT NULL CHECK(length(leaf)=32)
) STRICT;
CREATE INDEX audit_payment ON audit(payment) WHERE payment IS NOT NULL;
CREATE TRIGGER audit_kept BEFORE DELETE ON audit BEGIN SELECT RAISE(ABORT,'records are not deleted'); END;
CREATE TRIGGER audit_unchanged BEFORE UPDATE ON audit BEGIN SELECT RAISE(ABORT,'records are not changed'); END;

-- The complete subtrees of two leaves or more, numbered as C2SP's tlog does.
CREATE TABLE audit_node(idx INTEGER PRIMARY KEY, hash BLOB NOT NULL CHECK(length(hash)=32)) STRICT;
CREATE TRIGGER audit_node_kept BEFORE DELETE ON audit_node
BEGIN SELECT RAISE(ABORT,'hashes of records are not deleted'); END;
CREATE TRIGGER audit_node_unchanged BEFORE UPDATE ON audit_node
BEGIN SELECT RAISE(ABORT,'hashes of records are not changed'); END;

-- What was signed of the log and shown to somebody.
CREATE TABLE checkpoint(size INTEGER PRIMARY KEY CHECK(size>=0), note TEXT NOT NULL) STRICT;
CREATE TRIGGER checkpoint_kept BEFORE DELETE ON checkpoint
BEGIN SELECT RAISE(ABORT,'checkpoints are not deleted'); END;
CREATE TRIGGER checkpoint_unchanged BEFORE UPDATE ON checkpoint
BEGIN SELECT RAISE(ABORT,'checkpoints are not changed'); END;
