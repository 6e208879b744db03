-- The shared ledger in PostgreSQL. What columns mean is said in `schema_v1.sql`, which every gateway's own copy has; a
-- test compares the two. Here are the walls that hold whatever a gateway does: limits, one live payment for each
-- purchase, nonces used once, legal steps, and what is never changed or deleted. Rows are written as they are after a
-- transaction, so what happens inside one is judged by the steps it leaves, not by each row's change.

CREATE TABLE countersign.meta(k text PRIMARY KEY, v bytea NOT NULL);

CREATE TABLE countersign.budget(
  id bytea PRIMARY KEY CHECK(octet_length(id)=16),
  owner text NOT NULL, name text NOT NULL,
  unit bigint NOT NULL CHECK(unit IN (0,1)),
  kind bigint NOT NULL CHECK(kind IN (0,1,2,3)),
  zone text, width bigint CHECK(width>0),
  created bigint NOT NULL,
  CHECK((kind=1)=(width IS NOT NULL)), CHECK((kind IN (2,3))=(zone IS NOT NULL))
);

CREATE TABLE countersign.budget_window(
  budget bytea NOT NULL REFERENCES countersign.budget(id) DEFERRABLE INITIALLY DEFERRED,
  win bigint NOT NULL CHECK(win>=0),
  lim bigint NOT NULL CHECK(lim BETWEEN 0 AND 4000000000000000000),
  held bigint NOT NULL DEFAULT 0 CHECK(held>=0),
  spent bigint NOT NULL DEFAULT 0 CHECK(spent>=0),
  mark bigint NOT NULL DEFAULT 0,
  alerted bigint, reviewed bigint,
  seeded bigint NOT NULL DEFAULT 0 CHECK(seeded>=0),
  shared bigint NOT NULL DEFAULT 0 CHECK(shared IN (0,1)),
  seq bigint NOT NULL DEFAULT 0,
  PRIMARY KEY(budget,win), CHECK(held+spent<=lim)
);

CREATE TABLE countersign.bucket(
  budget bytea NOT NULL, start bigint NOT NULL, spent bigint NOT NULL CHECK(spent>=0),
  seeded bigint NOT NULL DEFAULT 0 CHECK(seeded BETWEEN 0 AND spent),
  PRIMARY KEY(budget,start)
);

CREATE TABLE countersign.payment(
  id bytea NOT NULL PRIMARY KEY CHECK(octet_length(id)=16),
  workspace text NOT NULL, agent text NOT NULL, purchase text NOT NULL,
  attempt bigint NOT NULL CHECK(attempt>0),
  fingerprint bytea NOT NULL CHECK(octet_length(fingerprint)=32),
  session bytea CHECK(octet_length(session)=16),
  method text NOT NULL, host text NOT NULL, path text NOT NULL, pay_to text NOT NULL,
  network text NOT NULL, asset text NOT NULL,
  amount bytea NOT NULL CHECK(octet_length(amount)=32),
  value bigint NOT NULL CHECK(value BETWEEN 0 AND 1000000000000000),
  payer bytea, nonce bytea CHECK(octet_length(nonce)=32), valid_before bigint, payload bytea,
  signature bytea CHECK(octet_length(signature)=65),
  state bigint NOT NULL CHECK(state IN (1,2,4,5,6,7,8,9,10,11)),
  version bigint NOT NULL DEFAULT 0,
  epoch bigint NOT NULL,
  signed bigint,
  counted bigint NOT NULL,
  delivered bigint NOT NULL DEFAULT 0 CHECK(delivered IN (0,1)),
  facts bytea NOT NULL,
  decision bytea NOT NULL, approval bytea,
  refusal text, repeats bigint NOT NULL DEFAULT 0,
  txhash text,
  evidence text,
  redeemed bytea CHECK(octet_length(redeemed)=32),
  created bigint NOT NULL, updated bigint NOT NULL,
  CHECK((payload IS NULL)=(nonce IS NULL)), CHECK((payload IS NULL)=(payer IS NULL)),
  CHECK((payload IS NULL)=(valid_before IS NULL)), CHECK((payload IS NULL)=(signed IS NULL)),
  CHECK(state NOT IN (4,5,6,7,9,10,11) OR payload IS NOT NULL),
  CHECK((state IN (7,9,10))=(redeemed IS NOT NULL)), CHECK(redeemed IS NULL OR redeemed<=amount),
  CHECK(redeemed IS NULL OR (txhash IS NOT NULL AND evidence IS NOT NULL)),
  CHECK(state NOT IN (1,2) OR payload IS NULL),
  CHECK(signature IS NULL OR payload IS NOT NULL)
);

CREATE TABLE countersign.alert(
  id bigint PRIMARY KEY, payment bytea NOT NULL REFERENCES countersign.payment(id) DEFERRABLE INITIALLY DEFERRED,
  budget text NOT NULL, unit bigint NOT NULL CHECK(unit IN (0,1)),
  threshold bigint NOT NULL, used bigint NOT NULL, lim bigint NOT NULL, at bigint NOT NULL,
  due bigint NOT NULL, state bigint NOT NULL DEFAULT 0 CHECK(state IN (0,1,2)),
  attempts bigint NOT NULL DEFAULT 0, tried bigint, outcome text,
  CHECK((attempts=0)=(tried IS NULL)), CHECK((tried IS NULL)=(outcome IS NULL))
);

CREATE TABLE countersign.hold(
  payment bytea NOT NULL REFERENCES countersign.payment(id) DEFERRABLE INITIALLY DEFERRED,
  budget bytea NOT NULL, win bigint NOT NULL,
  ord bigint NOT NULL,
  amount bigint NOT NULL CHECK(amount BETWEEN 1 AND 1000000000000000),
  lim bigint NOT NULL, alert bigint, review bigint,
  bucket bigint,
  due bigint,
  aged bigint NOT NULL DEFAULT 0 CHECK(aged IN (0,1)),
  open bigint NOT NULL DEFAULT 1 CHECK(open IN (0,1)),
  settled bigint CHECK(settled BETWEEN 0 AND amount),
  refunded bigint NOT NULL DEFAULT 0 CHECK(refunded>=0 AND refunded<=coalesce(settled,0)),
  at bigint NOT NULL,
  seq bigint NOT NULL,
  PRIMARY KEY(payment,budget,win),
  FOREIGN KEY(budget,win) REFERENCES countersign.budget_window(budget,win) DEFERRABLE INITIALLY DEFERRED,
  CHECK((open=1)=(settled IS NULL))
);

CREATE TABLE countersign.refund(
  payment bytea NOT NULL REFERENCES countersign.payment(id) DEFERRABLE INITIALLY DEFERRED,
  n bigint NOT NULL, network text NOT NULL,
  amount bytea NOT NULL CHECK(octet_length(amount)=32),
  txhash text, log bigint, block bigint,
  by text, reference text,
  at bigint NOT NULL,
  PRIMARY KEY(payment,n),
  CHECK((txhash IS NULL)=(log IS NULL)), CHECK((txhash IS NULL)=(block IS NULL)),
  CHECK((txhash IS NULL)=(by IS NOT NULL)), CHECK((by IS NULL)=(reference IS NULL))
);

CREATE TABLE countersign.finalized(
  network text PRIMARY KEY, block bigint NOT NULL, hash text NOT NULL, time bigint NOT NULL, at bigint NOT NULL
);

CREATE TABLE countersign.decision(
  id bytea NOT NULL PRIMARY KEY CHECK(octet_length(id)=16),
  payment bytea NOT NULL REFERENCES countersign.payment(id) DEFERRABLE INITIALLY DEFERRED,
  ord bigint NOT NULL CHECK(ord>=0),
  request bytea NOT NULL, judgement bytea NOT NULL, reasons bytea NOT NULL,
  verdict text NOT NULL, refusal text,
  seq bigint NOT NULL
);

CREATE TABLE countersign.step(
  payment bytea NOT NULL REFERENCES countersign.payment(id) DEFERRABLE INITIALLY DEFERRED,
  n bigint NOT NULL,
  at bigint NOT NULL, state bigint NOT NULL, event text, why text NOT NULL,
  PRIMARY KEY(payment,n)
);

CREATE TABLE countersign.approval(
  id bytea NOT NULL PRIMARY KEY CHECK(octet_length(id)=16),
  payment bytea NOT NULL REFERENCES countersign.payment(id) DEFERRABLE INITIALLY DEFERRED,
  state bigint NOT NULL CHECK(state IN (0,1,2,3,4)),
  frozen text NOT NULL, shown text NOT NULL, terms text NOT NULL,
  created bigint NOT NULL, expires bigint NOT NULL
);

CREATE TABLE countersign.vote(
  approval bytea NOT NULL REFERENCES countersign.approval(id) DEFERRABLE INITIALLY DEFERRED,
  operator text NOT NULL,
  ord bigint NOT NULL CHECK(ord>=0),
  approve bigint NOT NULL CHECK(approve IN (0,1)), at bigint NOT NULL, note text NOT NULL,
  groups text NOT NULL, channel text NOT NULL,
  message text,
  PRIMARY KEY(approval,operator)
);

CREATE TABLE countersign.notice(
  id bigint PRIMARY KEY,
  approval bytea NOT NULL REFERENCES countersign.approval(id) DEFERRABLE INITIALLY DEFERRED,
  event bigint NOT NULL CHECK(event IN (0,1,2)),
  body text NOT NULL, at bigint NOT NULL,
  due bigint NOT NULL, state bigint NOT NULL DEFAULT 0 CHECK(state IN (0,1,2)),
  attempts bigint NOT NULL DEFAULT 0, tried bigint, outcome text,
  CHECK((attempts=0)=(tried IS NULL)), CHECK((tried IS NULL)=(outcome IS NULL))
);

CREATE TABLE countersign.proposal(
  approval bytea NOT NULL PRIMARY KEY REFERENCES countersign.approval(id) DEFERRABLE INITIALLY DEFERRED,
  by text NOT NULL, document text NOT NULL, at bigint NOT NULL
);

CREATE TABLE countersign.session(
  id bytea NOT NULL PRIMARY KEY CHECK(octet_length(id)=16), token text NOT NULL UNIQUE,
  agent text NOT NULL, opener text NOT NULL, body text NOT NULL,
  lim bigint NOT NULL CHECK(lim BETWEEN 0 AND 1000000000000000),
  created bigint NOT NULL, expires bigint NOT NULL, closed bigint,
  count bigint NOT NULL DEFAULT 0, value bigint NOT NULL DEFAULT 0
);

CREATE TABLE countersign.suspension(
  scope text NOT NULL, name text NOT NULL, by text NOT NULL, reason text NOT NULL, at bigint NOT NULL,
  PRIMARY KEY(scope,name)
);

CREATE TABLE countersign.tally(
  kind bigint NOT NULL CHECK(kind IN (0,1)),
  workspace text NOT NULL, name text NOT NULL, minute bigint NOT NULL,
  count bigint NOT NULL, value bigint NOT NULL,
  PRIMARY KEY(kind,workspace,name,minute)
);

CREATE TABLE countersign.seller(
  workspace text NOT NULL, host text NOT NULL,
  count bigint NOT NULL DEFAULT 0, value bigint NOT NULL DEFAULT 0,
  first_paid bigint, last_paid bigint, last_pay_to text,
  judged bigint NOT NULL DEFAULT 0, useful bigint NOT NULL DEFAULT 0,
  agent_judged bigint NOT NULL DEFAULT 0, agent_useful bigint NOT NULL DEFAULT 0,
  PRIMARY KEY(workspace,host)
);

CREATE TABLE countersign.payee(
  workspace text NOT NULL, pay_to text NOT NULL, first_paid bigint NOT NULL,
  PRIMARY KEY(workspace,pay_to)
);

CREATE TABLE countersign.price(
  workspace text NOT NULL, host text NOT NULL, method text NOT NULL, path text NOT NULL,
  value bigint NOT NULL, at bigint NOT NULL,
  PRIMARY KEY(workspace,host,method,path)
);

CREATE TABLE countersign.approved(
  workspace text NOT NULL, host text NOT NULL, method text NOT NULL, path text NOT NULL,
  pay_to text NOT NULL, value bigint NOT NULL, at bigint NOT NULL,
  PRIMARY KEY(workspace,host,method,path)
);

CREATE TABLE countersign.use_report(
  payment bytea NOT NULL REFERENCES countersign.payment(id) DEFERRABLE INITIALLY DEFERRED,
  reporter bigint NOT NULL CHECK(reporter IN (0,1)),
  by text NOT NULL, used text NOT NULL, useful bigint NOT NULL CHECK(useful IN (0,1)),
  note text, artifact text, at bigint NOT NULL,
  words bigint NOT NULL DEFAULT 1,
  PRIMARY KEY(payment,reporter)
);

CREATE TABLE countersign.blob(digest bytea NOT NULL PRIMARY KEY CHECK(octet_length(digest)=32), bytes bytea NOT NULL);

CREATE TABLE countersign.generation(
  number bigint PRIMARY KEY CHECK(number>0), at bigint NOT NULL,
  origin text NOT NULL CHECK(origin IN ('file','api','rollback','restart')),
  by text NOT NULL, restores bigint REFERENCES countersign.generation(number) DEFERRABLE INITIALLY DEFERRED,
  whole bigint NOT NULL CHECK(whole IN (0,1)),
  config text NOT NULL, policies text NOT NULL, mandates text NOT NULL, mandates_stand_for text
);

CREATE TABLE countersign.audit(
  seq bigint PRIMARY KEY, at bigint NOT NULL, kind text NOT NULL,
  payment bytea CHECK(octet_length(payment)=16),
  body bytea NOT NULL, leaf bytea NOT NULL CHECK(octet_length(leaf)=32)
);

CREATE TABLE countersign.audit_node(idx bigint PRIMARY KEY, hash bytea NOT NULL CHECK(octet_length(hash)=32));

CREATE TABLE countersign.checkpoint(size bigint PRIMARY KEY CHECK(size>=0), note text NOT NULL);

-- Where the ledger stands. Its row's lock is what makes gateways take turns.
CREATE TABLE countersign.head(
  one smallint PRIMARY KEY CHECK(one=1), schema bigint NOT NULL,
  seq bigint NOT NULL CHECK(seq>=0), hash bytea NOT NULL CHECK(octet_length(hash)=32)
) WITH (fillfactor=50);

-- What each transaction changed, for the copies that follow. The hash is over all changes up to it. Bodies that every
-- copy had time to read are dropped; the hashes stay, so that any copy can be told from one of another past.
CREATE TABLE countersign.change(
  seq bigint PRIMARY KEY CHECK(seq>=0), epoch bigint NOT NULL, hash bytea NOT NULL CHECK(octet_length(hash)=32),
  body bytea, at timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX change_kept ON countersign.change(at) WHERE body IS NOT NULL;

-- Who writes, or wrote. An epoch that has ended writes nothing any more.
CREATE TABLE countersign.writer(
  epoch bigint PRIMARY KEY CHECK(epoch>0), copy bytea NOT NULL CHECK(octet_length(copy)=16),
  began timestamptz NOT NULL DEFAULT clock_timestamp(), seen timestamptz NOT NULL DEFAULT clock_timestamp(),
  ended boolean NOT NULL DEFAULT false
);
CREATE INDEX writer_alive ON countersign.writer(epoch) WHERE NOT ended;

-- Sellers' answers, kept for repeats: in no copy and no change, and the first to go when room is short.
CREATE TABLE countersign.answer(
  payment bytea PRIMARY KEY, at bigint NOT NULL, status integer NOT NULL, headers text NOT NULL, body bytea NOT NULL,
  size bigint NOT NULL
);
CREATE INDEX answer_at ON countersign.answer(at);
CREATE TABLE countersign.answers(one smallint PRIMARY KEY CHECK(one=1), bytes bigint NOT NULL) WITH (fillfactor=50);
INSERT INTO countersign.answers(one,bytes) VALUES(1,0);
CREATE FUNCTION countersign.answers_weigh() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF TG_OP<>'INSERT' THEN UPDATE countersign.answers SET bytes=bytes-OLD.size; END IF;
  IF TG_OP<>'DELETE' THEN UPDATE countersign.answers SET bytes=bytes+NEW.size; END IF;
  RETURN NULL;
END $$;
CREATE TRIGGER answers_weigh AFTER INSERT OR UPDATE OR DELETE ON countersign.answer
  FOR EACH ROW EXECUTE FUNCTION countersign.answers_weigh();

CREATE UNIQUE INDEX payment_attempt ON countersign.payment(workspace,agent,purchase,attempt);
CREATE UNIQUE INDEX payment_live ON countersign.payment(workspace,agent,purchase) WHERE state NOT IN (1,8);
CREATE UNIQUE INDEX payment_nonce ON countersign.payment(nonce,payer) WHERE nonce IS NOT NULL;
CREATE INDEX payment_in_flight ON countersign.payment(epoch) WHERE state=4;
CREATE UNIQUE INDEX refund_transfer ON countersign.refund(network,txhash,log) WHERE txhash IS NOT NULL;
CREATE UNIQUE INDEX refund_reference ON countersign.refund(payment,reference) WHERE reference IS NOT NULL;
CREATE UNIQUE INDEX decision_order ON countersign.decision(payment,ord);
CREATE UNIQUE INDEX vote_order ON countersign.vote(approval,ord);
CREATE UNIQUE INDEX vote_message ON countersign.vote(operator,message) WHERE message IS NOT NULL;

CREATE FUNCTION countersign.refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN RAISE EXCEPTION '%', TG_ARGV[0]; END $$;

CREATE TRIGGER window_mark BEFORE UPDATE ON countersign.budget_window FOR EACH ROW WHEN (NEW.mark<OLD.mark)
  EXECUTE FUNCTION countersign.refuse('the watermark of a window never goes back');
CREATE TRIGGER payment_payload BEFORE UPDATE ON countersign.payment FOR EACH ROW
  WHEN (OLD.payload IS NOT NULL AND (OLD.payload,OLD.nonce,OLD.payer,OLD.valid_before)
    IS DISTINCT FROM (NEW.payload,NEW.nonce,NEW.payer,NEW.valid_before))
  EXECUTE FUNCTION countersign.refuse('a payload is written once');
CREATE TRIGGER payment_signature BEFORE UPDATE ON countersign.payment FOR EACH ROW
  WHEN (OLD.signature IS NOT NULL AND NEW.signature IS DISTINCT FROM OLD.signature)
  EXECUTE FUNCTION countersign.refuse('a signature is written once');
CREATE TRIGGER payment_redeemed BEFORE UPDATE ON countersign.payment FOR EACH ROW
  WHEN (OLD.redeemed IS NOT NULL AND NEW.redeemed IS DISTINCT FROM OLD.redeemed)
  EXECUTE FUNCTION countersign.refuse('what was redeemed is written once');
CREATE TRIGGER approval_final BEFORE UPDATE ON countersign.approval FOR EACH ROW
  WHEN (OLD.state IN (2,3,4) AND NEW.state<>OLD.state)
  EXECUTE FUNCTION countersign.refuse('an approval is decided and used once');
CREATE TRIGGER alert_final BEFORE UPDATE ON countersign.alert FOR EACH ROW WHEN (OLD.state<>0)
  EXECUTE FUNCTION countersign.refuse('an alert is delivered or given up once');
CREATE TRIGGER notice_final BEFORE UPDATE ON countersign.notice FOR EACH ROW WHEN (OLD.state<>0)
  EXECUTE FUNCTION countersign.refuse('a notice is delivered or given up once');
CREATE TRIGGER finalized_forward BEFORE UPDATE ON countersign.finalized FOR EACH ROW
  WHEN (NEW.block<=OLD.block OR NEW.time<OLD.time)
  EXECUTE FUNCTION countersign.refuse('finality never goes back');

-- A payment stands where its last step left it, and every step follows from the one before.
CREATE FUNCTION countersign.step_is_legal() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE before bigint;
BEGIN
  SELECT state INTO before FROM countersign.step WHERE payment=NEW.payment AND n=NEW.n-1;
  IF NOT FOUND THEN
    IF NEW.n<>0 OR NEW.state NOT IN (1,2,4) THEN RAISE EXCEPTION 'no payment begins in this state'; END IF;
  ELSIF before*100+NEW.state NOT IN
    (204,208,405,406,407,408,411,506,507,508,511,605,607,608,611,709,710,910,1007,1009,1107,1108)
    AND before<>NEW.state THEN
    RAISE EXCEPTION 'no such step in the life of a payment';
  END IF;
  RETURN NEW;
END $$;
CREATE TRIGGER step_legal BEFORE INSERT ON countersign.step FOR EACH ROW EXECUTE FUNCTION countersign.step_is_legal();

CREATE FUNCTION countersign.payment_stands() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF NEW.state IS DISTINCT FROM
    (SELECT state FROM countersign.step WHERE payment=NEW.id ORDER BY n DESC LIMIT 1) THEN
    RAISE EXCEPTION 'a payment is where its last step left it';
  END IF;
  RETURN NEW;
END $$;
CREATE TRIGGER payment_stands BEFORE INSERT OR UPDATE ON countersign.payment
  FOR EACH ROW EXECUTE FUNCTION countersign.payment_stands();

DO $$
DECLARE kept text;
BEGIN
  FOREACH kept IN ARRAY ARRAY['payment','step','refund','finalized','decision','generation','audit','audit_node',
                              'checkpoint','head','change','writer'] LOOP
    EXECUTE format('CREATE TRIGGER kept BEFORE DELETE OR TRUNCATE ON countersign.%I FOR EACH STATEMENT
                    EXECUTE FUNCTION countersign.refuse(%L)', kept, kept||': nothing is deleted');
  END LOOP;
  FOREACH kept IN ARRAY ARRAY['step','refund','decision','generation','audit','audit_node','checkpoint'] LOOP
    EXECUTE format('CREATE TRIGGER unchanged BEFORE UPDATE ON countersign.%I FOR EACH ROW
                    EXECUTE FUNCTION countersign.refuse(%L)', kept, kept||': nothing is changed');
  END LOOP;
END $$;
