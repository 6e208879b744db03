"""read_journals.py beancount|hledger FILE TRUTH DUST: reads a journal with the program itself and compares it."""
import json
import sys
from collections import Counter
from fractions import Fraction

import check_journal
from notation import lines, money, truth, undo


def from_beancount(path):
    """(id, flag, payee, note, metadata, [(account, number, commodity)]) of each transaction."""
    from beancount.core import data
    for entry in check_journal.beancount(path):
        if isinstance(entry, data.Open):
            continue
        assert isinstance(entry, data.Transaction), entry
        assert not entry.tags - {"disputed"}, entry.tags
        meta = {k: v for k, v in entry.meta.items() if k not in ("filename", "lineno") and not k.startswith("__")}
        postings = [(p.account, Fraction(p.units.number), p.units.currency) for p in entry.postings]
        yield meta["id"], entry.flag, undo(entry.payee), undo(entry.narration), meta, postings


def from_hledger(path):
    check_journal.hledger(path, "check", "--strict")
    for t in json.loads(check_journal.hledger(path, "print", "--output-format=json")):
        # hledger drops the blank before the bar where the payee is empty.
        described = t["tdescription"]
        payee, _, note = (" " + described if described.startswith("|") else described).partition(" | ")
        tags = dict(t["ttags"])
        assert len(tags) == len(t["ttags"]) and tags.keys() - {"disputed"}, t["ttags"]
        postings = []
        for p in t["tpostings"]:
            assert not p["pdate"] and not p["ptags"], p
            (amount,) = p["pamount"]
            quantity = amount["aquantity"]
            number = Fraction(quantity["decimalMantissa"], 10 ** quantity["decimalPlaces"])
            postings.append((p["paccount"], number, amount["acommodity"].strip('"')))
        flag = {"Cleared": "*", "Pending": "!"}[t["tstatus"]]
        yield t["tcode"], flag, undo(payee), undo(note), tags, postings


def main(kind, path, expected, dust_below):
    lines(path)
    payments = {p["id"]: p for p in truth(expected)}
    totals, booked, dust = Counter(), set(), Counter()
    for id_, flag, payee, note, meta, postings in (from_beancount if kind == "beancount" else from_hledger)(path):
        assert id_ not in booked, id_
        booked.add(id_)
        for account, number, commodity in postings:
            totals[":".join(account.split(":")[:3]), commodity] += number
        if id_.startswith("dust-"):
            dust["count"] += int(meta["count"])
            assert meta["first"] in payments and meta["last"] in payments and meta["first"] <= meta["last"]
            assert undo(meta["seller"]) == payee
            continue
        p = payments[id_.split("/")[0]]
        assert payee == p["text"]["seller"], (ascii(payee), ascii(p["text"]["seller"]))
        settled, refunds, doubt = money(p)
        what = f'{p["text"]["method"]} {p["text"]["url"]}'
        if "/" in id_:
            refund = p["refunds"][int(id_.rsplit("-", 1)[1]) - 1]
            assert note == f"refund of {what}" and undo(meta["reference"]) == refund["reference"]
            assert flag == "*"
            continue
        assert note == (f"in doubt: {what}" if p["open"] else what), (ascii(note), ascii(what))
        assert flag == ("!" if p["open"] or p["state"] == "disputed" else "*")
        for name, want in p["text"].items():
            got = undo(meta[name]) if name in meta else None
            assert got == want, (name, ascii(got), ascii(want))
        words = dict(word.split("=", 1) for word in meta["policies-1"].split(" ")) if kind == "beancount" else None
        if words is not None:
            assert undo(words["version"]) == (p["version"] or "-"), (words, p["version"])

    # What must have been booked, and nothing else.
    want, small = Counter(), 0
    for p in payments.values():
        settled, refunds, doubt = money(p)
        disputed = p["state"] == "disputed"
        if doubt[0]:
            assert p["id"] in booked
        if settled[0]:
            single = disputed or settled[1] >= int(dust_below)
            assert (p["id"] in booked) == single, (p["id"], settled)
            small += not single
        else:
            assert p["id"] not in booked or p["open"]
        for i, (refund, r) in enumerate(zip(p["refunds"], refunds, strict=True), 1):
            assert (f"{p['id']}/refund-{i}" in booked) == (r[0] > 0)
            home = "Assets:Agents:Wallets" if refund["chain"] else "Assets:Agents:Refunds"
            want[home, "USDC"] += Fraction(r[0], 10**6)
            want["Expenses:Agents", "USD"] -= Fraction(r[1], 10**6)
        want["Assets:Agents:Wallets", "USDC"] -= Fraction(settled[0], 10**6)
        want["Expenses:Agents", "USD"] += Fraction(settled[1], 10**6)
        want["Liabilities:Agents:InDoubt", "USDC"] -= Fraction(doubt[0], 10**6)
        want["Equity:Agents:Commitments", "USD"] += Fraction(doubt[1], 10**6)
    assert dust["count"] == small, (dust, small)
    got = Counter()
    for (account, commodity), number in totals.items():
        key = "Expenses:Agents" if account.startswith("Expenses:Agents:") else account
        got[key, commodity] += number
    assert {k: v for k, v in got.items() if v} == {k: v for k, v in want.items() if v}, (got, want)


main(*sys.argv[1:])
