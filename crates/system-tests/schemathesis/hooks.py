"""What the OpenAPI document cannot say, for scripts/schemathesis.

Formats that are ours get values that obey them. The run's own user and key are spared from deletion:
without them every later answer would be 401 and the run would test nothing.
"""

import base64
import os
import re
import uuid
from datetime import datetime, timedelta, timezone

import schemathesis
from hypothesis import strategies as st

# Where schemathesis and its kin keep nothing: names for documentation (RFC 2606), never this service's own.
_HOSTS = st.sampled_from(["example.com", "example.org", "sub.example.net", "xn--bcher-kva.example", "192.0.2.7", "[2001:db8::7]"])
_PORTS = st.sampled_from(["", ":80", ":443", ":8443"])
_PIECES = st.sampled_from(["a", "Z", "0", "-", ".", "_", "~", "/", "%20", "%C3%A9", "@", ":"])
_PATHS = st.lists(_PIECES, max_size=30).map(lambda pieces: "/" + "".join(pieces))
_QUERIES = st.one_of(st.just(""), st.lists(_PIECES, max_size=20).map(lambda pieces: "?q=" + "".join(pieces)))

# A target: an allowed scheme, a host, no credentials.
schemathesis.openapi.format(
    "uri",
    st.builds(
        lambda scheme, host, port, path, query: f"{scheme}://{host}{port}{path}{query}",
        st.sampled_from(["http", "https", "HTTPS"]), _HOSTS, _PORTS, _PATHS, _QUERIES,
    ),
)

# A cursor, as `Link` headers carry it.
schemathesis.openapi.format(
    "cursor",
    st.integers(min_value=0, max_value=2**40).map(
        lambda last: base64.urlsafe_b64encode(f"after:{last}".encode()).decode().rstrip("=")
    ),
)

# The same of a list in the order of time: microseconds since 1970, and an id.
schemathesis.openapi.format(
    "time-cursor",
    st.builds(
        lambda micros, last: base64.urlsafe_b64encode(f"at:{micros}:{last}".encode()).decode().rstrip("="),
        st.integers(min_value=0, max_value=2**52), st.integers(min_value=0, max_value=2**40),
    ),
)

# The ends of statistics: the first before the second, and not more hours between them than are allowed.
_NOW = datetime.now(timezone.utc)
for _name, _first, _last in (("stats-from", -40, -3), ("stats-to", 0, 40)):
    schemathesis.openapi.format(
        _name,
        st.builds(
            lambda days, form: (_NOW + timedelta(days=days)).strftime(form),
            st.integers(min_value=_first, max_value=_last), st.sampled_from(["%Y-%m-%d", "%Y-%m-%dT%H:%M:%SZ"]),
        ),
    )

# Names that every IANA database has.
schemathesis.openapi.format(
    "time-zone", st.sampled_from(["UTC", "Europe/Berlin", "America/New_York", "Asia/Kolkata", "Etc/GMT+5", "Pacific/Auckland"])
)

# An address that has the shape of one and is unlikely to be taken.
schemathesis.openapi.format(
    "email",
    st.text(alphabet="abcdefghijklmnopqrstuvwxyz0123456789", min_size=12, max_size=40).map(
        lambda local: f"{local}@example.com"
    ),
)

# A time that is yet to come, by any clock that runs this: keys may not end before they are made.
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
    """Drops the deletion of the user and the key that the run lives on, and files whose content no schema describes."""
    if case.method.upper() == "POST" and case.operation.path.endswith("/bulk"):
        return case.media_type in (None, "application/json")
    if case.method.upper() != "DELETE":
        return True
    return str((case.path_parameters or {}).get("id")) != _OWN.get(case.operation.path)


def _plain_numbers(values):
    """To JSON Schema 1.0 is an integer, but a number has one spelling in a URL, so that a thing has one address."""
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


# As the document has it.
_IDEMPOTENCY_KEY = re.compile(r"(?=.{1,255}$)[!-~]([ -~]*[!-~])?")


@schemathesis.hook
def before_call(context, case, kwargs):
    """Makes each valid Idempotency-Key a new one: a used one with another body is refused, which no schema can say.
    Waits for no job: nobody runs them here."""
    headers = case.headers or {}
    for name in [name for name in headers if name.lower() == "prefer"]:
        del headers[name]
    for name in list(headers):
        if name.lower() == "idempotency-key" and _IDEMPOTENCY_KEY.fullmatch(str(headers[name])):
            headers[name] = uuid.uuid4().hex
