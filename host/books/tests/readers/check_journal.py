"""check_journal.py beancount|hledger FILE: the program itself finds no fault with the file."""
import subprocess
import sys


def beancount(path):
    from beancount import loader
    entries, errors, _ = loader.load_file(path)
    assert not errors, [(e.source, e.message) for e in errors[:5]]
    return entries


def hledger(path, *command):
    run = subprocess.run(["hledger", "--no-conf", "-f", path, *command], capture_output=True, text=True)
    if "Unknown flag: --no-conf" in run.stderr:
        run = subprocess.run(["hledger", "-f", path, *command], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr[:3000]
    return run.stdout


if __name__ == "__main__":
    kind, path = sys.argv[1:]
    if kind == "beancount":
        assert beancount(path)
    else:
        hledger(path, "check", "--strict")
