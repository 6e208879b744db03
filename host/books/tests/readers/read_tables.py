"""read_tables.py csv|focus|jsonl FILE TRUTH: reads an export with Python's own readers and compares it."""
import csv
import json
import sys

from notation import lines, millionths, money, truth, undo

FORMULA = tuple("=+-@\t\r＝＋－＠")


def fused(cell):
    """Takes the apostrophes away; fails where a spreadsheet would have read a formula."""
    parts = []
    for part in cell.split(";"):
        assert not part.lstrip(' "\u00a0\u3000').startswith(FORMULA), ascii(cell)
        parts.append(part[1:] if part.startswith("'") else part)
    return undo(";".join(parts))


def row_of(row, p, text, parsed):
    """One payment's columns, `text` undoing what the format did to foreign text."""
    for name, want in p["text"].items():
        got = text(row[name])
        assert got == want or (want is None and got == ""), (name, ascii(got), ascii(want))
    assert parsed(row["policies"])[0]["version"] == p["version"]
    assert parsed(row["reasons"])[0]["code"] == p["code"]
    settled, refunds, doubt = money(p)
    figures = {
        "amount": int(p["amount"]), "value": int(p["value"]), "settled_amount": settled[0], "settled_value": settled[1],
        "refunded_amount": sum(r[0] for r in refunds), "refunded_value": sum(r[1] for r in refunds),
        "in_doubt_amount": doubt[0], "in_doubt_value": doubt[1],
    }
    for name, want in figures.items():
        assert millionths(row[name]) == want, (name, row[name], want)
    made = [(millionths(r["amount"]), millionths(r["value"])) for r in parsed(row["refunds"]) or []]
    assert made == refunds, (made, refunds)


def listed(cell):
    assert ";" not in cell
    return json.loads(cell) if cell else []


def read_csv(path, count):
    physical = lines(path)
    assert len(physical) == count + 1, (len(physical), count)
    with open(path, encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file, strict=True))
    header = rows[0]
    assert len(set(header)) == len(header)
    return [dict(zip(header, row, strict=True)) for row in rows[1:]]


def main(kind, path, expected):
    payments = truth(expected)
    if kind == "jsonl":
        rows = [json.loads(line) for line in lines(path)]
        for row, p in zip(rows, payments, strict=True):
            assert row["id"] == p["id"] and row["state"] == p["state"]
            row_of(row, p, lambda value: value, lambda value: value)
    elif kind == "csv":
        for row, p in zip(read_csv(path, len(payments)), payments, strict=True):
            assert row["id"] == p["id"] and row["state"] == p["state"]
            row_of(row, p, fused, listed)
    else:
        charges = []
        for p in payments:
            settled, refunds, _ = money(p)
            if settled[0]:
                charges.append((p, p["id"], settled, 1))
            charges += [(p, f"{p['id']}/refund-{i}", r, -1) for i, r in enumerate(refunds, 1)]
        rows = read_csv(path, len(charges))
        for row, (p, charge, sum_, sign) in zip(rows, charges, strict=True):
            assert row["x_ChargeId"] == charge
            for cost in ["BilledCost", "EffectiveCost", "ListCost", "ContractedCost"]:
                assert millionths(row[cost]) == sign * sum_[1], (cost, row[cost], sum_)
            assert millionths(row["PricingQuantity"]) == sign * sum_[0]
            assert fused(row["ServiceName"]) == p["text"]["seller"]
            assert fused(row["SubAccountId"]) == (p["text"]["client"] or "")
            assert json.loads(row["Tags"]).get("task") == p["text"]["task"]
            own = {name: row["x_" + "".join(w.capitalize() for w in name.split("_"))] for name in [
                *p["text"], "policies", "reasons", "refunds", "amount", "value", "settled_amount", "settled_value",
                "refunded_amount", "refunded_value", "in_doubt_amount", "in_doubt_value"]}
            row_of(own, p, fused, listed)


main(*sys.argv[1:])
