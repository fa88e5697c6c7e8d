"""Secrets: which variables of the environment hold one, by name or by the shape of the value; and their redaction.

What is held back from the ranks is redacted in every file of a sweep: a rank may know it from elsewhere.
"""

import html
import json
import os
import re
import urllib.parse
from collections.abc import Collection, Iterable, Mapping
from functools import lru_cache
from itertools import pairwise

REDACTED = "<secret>"

# --- by name ---------------------------------------------------------------------------------------------------------

SECRET_NAME = re.compile(
    r"SECRET|PASSW|PASSPHRASE|PASSFILE|ASKPASS|CREDENTIAL|WEBHOOK|CONN(ECTION)?_?STR|API_?KEY|ACCESS_?KEY|PRIVATE_?KEY"
    r"|SIGNING|NETRC|COOKIE|BEARER",
    re.IGNORECASE,
)
"""Parts of names; no setting has them."""

SECRET_WORDS = frozenset(
    {"TOKEN", "TOKENS", "PAT", "AUTH", "KEY", "KEYS", "PASS", "PWD", "PSW", "PW", "CREDS", "CRED", "DSN", "JWT", "OTP"}
    | {"SSHKEY", "SASL", "HMAC"}
)
"""Whole words of names, which settings may have too: there they are flags or small numbers."""

SETTING = re.compile(r"\d{0,5}|true|false|yes|no|on|off|none|auto", re.IGNORECASE)
"""What a variable holds that only sounds like a secret (`MAX_TOKENS=2048`)."""

NEVER_SECRET = frozenset({"PWD", "OLDPWD"})

HOST_VARIABLES = frozenset({"HOSTNAME", "HOST", "SSH_CONNECTION", "SSH_CLIENT"})

# --- by shape --------------------------------------------------------------------------------------------------------

SECRET_SHAPES = re.compile(
    r"\bgh[pousr]_\w{16,}|\bgithub_pat_\w{16,}|\bglpat-[\w-]{16,}|\bxox[abeoprs]-[\w-]{10,}|\b(AKIA|ASIA)[A-Z0-9]{16}\b"
    r"|\bhf_[A-Za-z0-9]{16,}|\b[sr]k[-_][\w-]{16,}|\bAIza[\w-]{30,}|\bya29\.[\w-]{16,}|\bnpm_[A-Za-z0-9]{30,}"
    r"|\bpypi-[\w-]{16,}|\bdckr_pat_[\w-]{16,}|\bSG\.[\w-]{16,}\.[\w-]{16,}|\bnvapi-[\w-]{16,}|\bdop_v1_\w{16,}"
    r"|\beyJ[\w-]{8,}\.eyJ[\w-]{4,}\.[\w-]*|-----BEGIN [A-Z ]*PRIVATE KEY"
    r"|://[^/\s@:]*:[^/\s@]+@|://[^/\s@:]{20,}@"
    r"|hooks\.slack\.com/services/|/api/webhooks/\d+/"
    r"|[?&](token|key|api_?key|secret|sig|signature|password|x-amz-signature)=[^&\s]{6,}"
    r"|\b(password|pwd|accountkey|sharedaccesskey|secret|token)\s*=\s*[^;\s]{4,}"
    r"|\"(password|secret|token|private_key|client_secret|auth)\"\s*:\s*\"[^\"]{4,}",
    re.IGNORECASE,
)
"""Known beginnings, tokens of three parts, keys, URLs and connection strings with a password."""

RANDOM_RUN = re.compile(r"[A-Za-z0-9]{20,}")
HEXADECIMAL = re.compile(r"[0-9a-f]+|[0-9A-F]+")
RANDOM_CHANGES = 0.3
"""Changes between small letters, capitals and digits, per character: chance makes 0.4 and more, words do not."""


def is_secret(name: str, value: str) -> bool:
    """Whether a variable holds what no file and no rank may get."""
    if name in NEVER_SECRET or not value:
        return False
    if SECRET_NAME.search(name):
        return True
    has_word = not SECRET_WORDS.isdisjoint(re.split(r"[^A-Z]+", re.sub(r"([a-z])([A-Z])", r"\1_\2", name).upper()))
    return (has_word and not SETTING.fullmatch(value)) or has_secret_shape(value)


def has_secret_shape(value: str) -> bool:
    """Whether a value looks like a secret, whatever its name. Paths, hashes and UUIDs do not."""
    if SECRET_SHAPES.search(value):
        return True
    is_place = value.startswith(("/", "~", ".")) or ":/" in value or "=/" in value
    return not is_place and any(map(_is_random, RANDOM_RUN.findall(value)))


def _is_random(run: str) -> bool:
    kinds = ["0" if char.isdigit() else "a" if char.islower() else "A" for char in run]
    if len(set(kinds)) < 2 or HEXADECIMAL.fullmatch(run) or (len(set(kinds)) == 2 and len(run) < 32):
        return False
    changes = sum(one != other for one, other in pairwise(kinds))
    return changes >= RANDOM_CHANGES * len(run)


def without_secrets(environ: Mapping[str, str], passed: Collection[str] = ()) -> dict[str, str]:
    """The environment that ranks get: without secrets, but those `passed` by name, and without the host's name."""
    return {
        name: value
        for name, value in environ.items()
        if name in passed or (name not in HOST_VARIABLES and not is_secret(name, value))
    }


# --- redaction -------------------------------------------------------------------------------------------------------

SHORTEST = 6
"""Characters of a value that is redacted; a shorter one is found in every text."""
SHORTEST_WORD = 8
"""The same of letters or digits alone."""


def redact(text: str) -> str:
    """`text` without the values of this process's secret variables, however they are quoted in it."""
    pattern = _pattern(_secret_values())
    return pattern.sub(REDACTED, text) if pattern else text


def exposed_variable(text: str) -> str | None:
    """The name of a secret variable whose value is in the text; None where no such value is."""
    found = (name for name, value in os.environ.items() if is_secret(name, value) and _is_telling(value))
    return next((name for name in found if os.environ[name] in text), None)


def _secret_values() -> frozenset[str]:
    return frozenset(value for name, value in os.environ.items() if is_secret(name, value))


@lru_cache(maxsize=4)
def _pattern(values: frozenset[str]) -> re.Pattern[str] | None:
    """Finds each value, and each line of one that has several; None where there is none."""
    parts = {part.strip() for value in values for part in (value, *value.splitlines())}
    forms = {form for part in parts if _is_telling(part) for form in _quoted(part)}
    return re.compile("|".join(map(re.escape, sorted(forms, key=len, reverse=True)))) if forms else None


def _is_telling(value: str) -> bool:
    """Whether a value is long enough to be no word of other texts."""
    is_word = value.isalpha() or value.isdigit()
    return len(value) >= (SHORTEST_WORD if is_word else SHORTEST)


def _quoted(value: str) -> Iterable[str]:
    """As it stands, and as JSON, Python, HTML and URLs write it."""
    yield value
    yield json.dumps(value)[1:-1]
    yield json.dumps(value, ensure_ascii=False)[1:-1]
    yield repr(value)[1:-1]
    yield html.escape(value)
    yield urllib.parse.quote(value, safe="")
