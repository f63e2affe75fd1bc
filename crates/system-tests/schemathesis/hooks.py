"""Hooks for scripts/schemathesis: values for the document's own formats, and requests that the run must not send.

The run must not delete its own user or key, because every later response would then be 401.
"""

import base64
import os
import re
import uuid
from datetime import datetime, timedelta, timezone

import schemathesis
from hypothesis import strategies as st

# Hosts that are reserved for documentation (RFC 2606). A target cannot be this installation.
_HOSTS = st.sampled_from(["example.com", "example.org", "sub.example.net", "xn--bcher-kva.example", "192.0.2.7", "[2001:db8::7]"])
_PORTS = st.sampled_from(["", ":80", ":443", ":8443"])
_PIECES = st.sampled_from(["a", "Z", "0", "-", ".", "_", "~", "/", "%20", "%C3%A9", "@", ":"])
_PATHS = st.lists(_PIECES, max_size=30).map(lambda pieces: "/" + "".join(pieces))
_QUERIES = st.one_of(st.just(""), st.lists(_PIECES, max_size=20).map(lambda pieces: "?q=" + "".join(pieces)))

# A target has an allowed scheme, a host and no credentials.
schemathesis.openapi.format(
    "uri",
    st.builds(
        lambda scheme, host, port, path, query: f"{scheme}://{host}{port}{path}{query}",
        st.sampled_from(["http", "https", "HTTPS"]), _HOSTS, _PORTS, _PATHS, _QUERIES,
    ),
)

# Hosts to ban, which are not those of the targets above.
schemathesis.openapi.format("host", st.integers(min_value=0, max_value=99).map(lambda n: f"h{n}.banned.example"))

# A cursor of a list that is ordered by id.
schemathesis.openapi.format(
    "cursor",
    st.integers(min_value=0, max_value=2**40).map(
        lambda last: base64.urlsafe_b64encode(f"after:{last}".encode()).decode().rstrip("=")
    ),
)

# A cursor of a list that is ordered by time: microseconds since 1970, and an id.
schemathesis.openapi.format(
    "time-cursor",
    st.builds(
        lambda micros, last: base64.urlsafe_b64encode(f"at:{micros}:{last}".encode()).decode().rstrip("="),
        st.integers(min_value=0, max_value=2**52), st.integers(min_value=0, max_value=2**40),
    ),
)

# The bounds of statistics: `from` precedes `to`, and the range stays below the longest for hours.
_NOW = datetime.now(timezone.utc)
for _name, _first, _last in (("stats-from", -40, -3), ("stats-to", 0, 40)):
    schemathesis.openapi.format(
        _name,
        st.builds(
            lambda days, form: (_NOW + timedelta(days=days)).strftime(form),
            st.integers(min_value=_first, max_value=_last), st.sampled_from(["%Y-%m-%d", "%Y-%m-%dT%H:%M:%SZ"]),
        ),
    )

# Names that are in every version of the IANA database.
schemathesis.openapi.format(
    "time-zone", st.sampled_from(["UTC", "Europe/Berlin", "America/New_York", "Asia/Kolkata", "Etc/GMT+5", "Pacific/Auckland"])
)

# A valid address that is unlikely to be taken.
schemathesis.openapi.format(
    "email",
    st.text(alphabet="abcdefghijklmnopqrstuvwxyz0123456789", min_size=12, max_size=40).map(
        lambda local: f"{local}@example.com"
    ),
)

# A time in the far future: a key must not expire before it is created.
schemathesis.openapi.format(
    "date-time",
    st.datetimes(min_value=datetime(2100, 1, 1), max_value=datetime(9998, 12, 31)).map(
        lambda time: time.strftime("%Y-%m-%dT%H:%M:%SZ")
    ),
)

_OWN = {
    "/api/v1/users/{id}": os.environ["LINNET_SCHEMATHESIS_USER"],
    "/api/v1/api-keys/{id}": os.environ["LINNET_SCHEMATHESIS_KEY_ID"],
}


@schemathesis.hook
def filter_case(context, case):
    """Drops the deletion of the run's own user and key, uploads whose content no schema describes, and empty query
    parameters, which count as absent whatever their schema. An object can become one too."""
    if any(value in ("", []) or isinstance(value, dict) for value in (case.query or {}).values()):
        return False
    if case.method.upper() == "POST" and case.operation.path.endswith("/bulk"):
        return case.media_type in (None, "application/json")
    if case.method.upper() != "DELETE":
        return True
    return str((case.path_parameters or {}).get("id")) != _OWN.get(case.operation.path)


def _plain_numbers(values):
    """Replaces 1.0 by 1. JSON Schema accepts both as integers, but URLs accept only digits."""
    return {
        name: int(value) if isinstance(value, float) and value.is_integer() else value
        for name, value in (values or {}).items()
    }


@schemathesis.hook
def map_path_parameters(context, path_parameters):
    return _plain_numbers(path_parameters)


@schemathesis.hook
def map_query(context, query):
    return _plain_numbers(query)


# The pattern of the document.
_IDEMPOTENCY_KEY = re.compile(r"(?=.{1,255}$)[!-~]([ -~]*[!-~])?")


def _postpone_expiry(body):
    """Moves a past `expires_at` into the future, as no schema demands."""
    if not isinstance(body, dict):
        return
    _postpone_expiry(body.get("change"))
    try:
        expires_at = datetime.fromisoformat(body["expires_at"].replace("Z", "+00:00"))
        is_past = expires_at <= datetime.now(timezone.utc)
    except (KeyError, AttributeError, TypeError, ValueError):
        return
    if is_past:
        body["expires_at"] = "2100-01-01T00:00:00Z"


@schemathesis.hook
def before_call(context, case, kwargs):
    """Replaces each valid Idempotency-Key by a new one, because a used key with another body is rejected. Removes Prefer,
    because no worker runs the jobs that a request would wait for. Replaces the id of a response that has none, such as the
    user of a banned code."""
    _postpone_expiry(case.body)
    for name, value in (case.path_parameters or {}).items():
        if str(value) == "None":
            case.path_parameters[name] = 1
    headers = case.headers or {}
    for name in [name for name in headers if name.lower() == "prefer"]:
        del headers[name]
    for name in list(headers):
        if name.lower() == "idempotency-key" and _IDEMPOTENCY_KEY.fullmatch(str(headers[name])):
            headers[name] = uuid.uuid4().hex
