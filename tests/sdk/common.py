"""What the scripts with the stock SDKs share: the simulated providers' switches, and a runner of tests.

The gateway's address is in GATEWAY, those of its simulated providers' switches are in CLAUDE and DEEPSEEK.
"""

import asyncio
import inspect
import json
import os
import sys
import time
import traceback
import urllib.parse
import urllib.request

GATEWAY = os.environ["GATEWAY"]

# The gateway's names of its models. Each stands in for the other.
CLAUDE_MODEL, DEEPSEEK_MODEL = "claude-3.5-sonnet", "deepseek-chat"

QUESTION = "What is a fuse?"

# What a provider can do with a request before a client has seen anything of the answer.
BEFORE_CONTENT = [
    "refused", "reset", "hang", "server-error", "unavailable", "overloaded", "rate-limited", "bad-key",
    "no-balance", "rubbish", "cut", "error-first", "silence",
]
# What breaks a stream after that.
MID_STREAM = ["error-mid-stream", "cut-mid-stream", "stall", "no-finish"]


def call(method, url):
    with urllib.request.urlopen(urllib.request.Request(url, method=method), timeout=30) as response:
        return json.load(response)


class Provider:
    """A simulated provider, from its own side."""

    def __init__(self, name):
        self.name, self.url = name, os.environ[name.upper()]

    def break_with(self, fault, **query):
        call("POST", f"{self.url}/fault/{fault}?{urllib.parse.urlencode(query)}")

    def heal(self):
        call("DELETE", f"{self.url}/fault")

    def pace(self, **query):
        call("POST", f"{self.url}/pace?{urllib.parse.urlencode(query)}")

    def stats(self):
        return call("GET", f"{self.url}/stats")

    def requests(self):
        return self.stats()["requests"]

    def says(self, what, verb="You said"):
        return f"Hello! This is {self.name}, simulated. {verb}: {what}"


claude, deepseek = Provider("claude"), Provider("deepseek")


def reset():
    """Everybody is well, and every circuit is closed."""
    for provider in (claude, deepseek):
        provider.heal()
        provider.pace(first_ms=0, gap_ms=0)
    call("POST", f"{GATEWAY}/admin/circuit-breakers/reset")


def break_both(fault, **query):
    for provider in (claude, deepseek):
        provider.break_with(fault, **query)


def health(provider):
    return call("GET", f"{GATEWAY}/health")[provider.name]["circuitBreaker"]


def questions():
    """The requests to models that the gateway has counted."""
    with urllib.request.urlopen(f"{GATEWAY}/metrics", timeout=30) as response:
        lines = response.read().decode().splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith("gateway_requests_total{"))


def eventually(what, look):
    """Looks until there is something to see, for 30 seconds at most."""
    until = time.monotonic() + 30
    while time.monotonic() < until:
        if look():
            return
        time.sleep(0.02)
    raise AssertionError(f"waited in vain for {what}")


def raised(ask):
    """What is raised by asking: a test that expects an error fails where there is none."""
    try:
        answer = ask()
    except Exception as error:  # whatever an SDK raises is what is looked at
        return error
    raise AssertionError(f"nothing was raised, but returned: {answer!r}")


def run(module):
    """Runs each function whose name begins with `test_`, and ends with the number of those that failed."""
    failed = 0
    only = sys.argv[1:]
    for name, test in module.items():
        if not name.startswith("test_") or only and name not in only:
            continue
        reset()
        begun = time.monotonic()
        try:
            if inspect.iscoroutinefunction(test):
                asyncio.run(test())
            else:
                test()
            print(f"{name} ... ok ({time.monotonic() - begun:.2f} s)")
        except Exception:
            failed += 1
            print(f"{name} ... FAILED")
            traceback.print_exc(file=sys.stdout)
        sys.stdout.flush()
    reset()
    sys.exit(min(failed, 100))
