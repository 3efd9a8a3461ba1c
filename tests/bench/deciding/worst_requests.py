"""Requests that a stranger may send to cost much, for `tests.bench.deciding.worst_case`.

Envoy lets 60 KiB of header fields pass, 100 of them. Each request here fills that in another way.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import count
from typing import Final

from extauthz.clock import SystemClock
from extauthz.policy.matching.match import MAX_ESCAPES, MAX_TEXT_ESCAPES
from tests.bench.deciding.core import ISSUER, sign_token
from tests.builders import API_KEY
from tests.keys import PrivateKey

FULL: Final = 58_000
"""Bytes that fill what Envoy lets pass, with some room for the rest of a request."""
READ: Final = 16_000
"""Bytes of a query, or of cookies, that are read."""
PATH: Final = "/worst/1.0.0/things/4711"
KEY: Final = ("x-api-key", API_KEY)
NO_KEY: Final = ("x-no-key", API_KEY)

Fields = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """One kind of request, filled with one text.

    Attributes:
        path: with its query.
        context: context extensions of the route.
        tokens: gives another bearer token for each request.
        body: as far as Envoy sends it.
    """

    title: str
    filled_with: str = ""
    path: str = PATH
    credential: tuple[str, str] = KEY
    fields: Fields = ()
    context: Mapping[str, str] | None = None
    tokens: Callable[[], str] | None = None
    body: str = ""


ORDINARY: Final = Kind(
    title="an ordinary request", path=f"{PATH}?limit=50&tenant=blue&sort=-name&q=caf%C3%A9"
)


def repeat(text: str, size: int) -> str:
    """A text over and over, of so many bytes at most."""
    return text * (size // len(text.encode()))


def _fill_query(size: int, credential: tuple[str, str]) -> Iterator[Kind]:
    title = f"a query of {size:,} bytes{', no credential' if credential is NO_KEY else ''}"
    for text in ("&", "a=1&", "&apike", "%61", "&%61pike", "x", ";", "é", "%", "&tenant%"):
        path = f"{PATH}?{repeat(text, size)}"
        yield Kind(title=title, filled_with=text, path=path, credential=credential)


def _fill_fields(names: Iterable[str], size: int) -> Iterator[Kind]:
    for name in names:
        for text in (",", ";", "a=1; ", '"', '\\"', "[", "::", "é", " ", "apikey;", "1.1.1.1,"):
            fields = ((name, repeat(text, size)),)
            yield Kind(title=f"{size:,} bytes in {name}", filled_with=text, fields=fields)


def _fill_credential() -> Iterator[Kind]:
    for name in ("authorization", "x-api-key"):
        for text in (",", " ", "Bearer ", "é", "A", ".", "Bearer A.A."):
            credential = (name, repeat(text, FULL))
            yield Kind(title=f"{FULL:,} bytes in {name}", filled_with=text, credential=credential)


def _fill_certificates() -> Iterator[Kind]:
    texts = (
        "By=a,",
        "URI=a;",
        'Subject="a\\"b";',
        "a=,",
        'URI="' + "\\\\" * 100 + '";',
        "a",
        " ",
        '"a=',
    )
    for text in texts:
        yield Kind(
            title=f"{READ:,} bytes of client certificates",
            filled_with=text,
            fields=(("x-forwarded-client-cert", repeat(text, READ)),),
            credential=NO_KEY,
        )


def _fill_path() -> Iterator[Kind]:
    texts = (
        "/", "/a", "/%61", "/%C3%A9", "%41", "/..", "/%2e%2e", "/a;", "/{x}", "*", "%40", "/a%40",
        "a", "%C3%A9", "%2525",
    )  # fmt: skip
    for text in texts:
        path = "/worst/1.0.0/deep/a" + repeat(text, 8_000)
        yield Kind(title="a path of 8,000 bytes", filled_with=text, path=path)
        yield Kind(title=f"a path of {FULL:,} bytes", filled_with=text, path=repeat(text, FULL))
    for text in ("/a", "/%40", "/%C3%A9", "/%E4%BD%A0", "/a%40a%40", "/%25", "/%40%40%40%40"):
        path = "/worst/1.0.0/deep/a" + text * 120
        yield Kind(title="a path of 124 segments", filled_with=text, path=path)
    for text in ("/@me/a/$count", "/%40me/a/%24count", "/a/a/a/a/z", "/a%40/a/%40/a/y"):
        path = f"/worst/1.0.0/deep{text}"
        yield Kind(title="a path with several readings", filled_with=text, path=path)
    for text in ("%40", "%C3%A9", "%2525", "%E4%BD%A0"):
        path = "/worst/1.0.0/deep/" + text * (MAX_ESCAPES // text.count("%"))
        yield Kind(title=f"a path of {MAX_ESCAPES} escapes", filled_with=text, path=path)
    for text in ("%E4%BD%A0", "%e4%bd%a0", "a%C3%A9", "/x%E4%BD%A0" + "%e4%bd%a0" * 14, "%20"):
        path = "/worst/1.0.0/deep/x" + text * (MAX_TEXT_ESCAPES // text.count("%"))
        yield Kind(
            title=f"a path of {MAX_TEXT_ESCAPES:,} escapes beyond ASCII",
            filled_with=text,
            path=f"{path}y",
        )


def _fill_many_fields() -> Iterator[Kind]:
    names = [f"x-f{number}" for number in range(85)]
    for text in ("v", "é"):
        for size in (20, FULL // len(names) - 8):
            fields = tuple((name, repeat(text, size)) for name in names)
            yield Kind(title=f"100 fields of {size} bytes", filled_with=text, fields=fields)
    for name in ("x-f", "x-forwarded-for", "cookie", "x-api-key", "x-cost", "x-tenant"):
        fields = tuple((name, "1") for _ in names)
        yield Kind(title="100 fields of one name", filled_with=name, fields=fields)
    fields = tuple((name.replace("-", "_"), "v") for name in names)
    yield Kind(title="100 fields with underscores", fields=fields)


def list_kinds() -> list[Kind]:
    """Every kind that does not need a token of its own."""
    looked_at = (
        "cookie", "x-forwarded-for", "x-forwarded-client-cert", "x-tenant", "accept", "content-type",
        "referer", "x-cost", "user-agent", "x-request-id", "accept-language",
    )  # fmt: skip
    return [
        ORDINARY,
        *_fill_query(FULL, KEY),
        *_fill_query(FULL, NO_KEY),
        *_fill_query(READ, KEY),
        *_fill_query(READ, NO_KEY),
        *_fill_fields(looked_at, FULL),
        *_fill_fields(("cookie", "x-tenant"), READ),
        *_fill_fields(("x-tenant", "x-cost"), 4_000),
        *_fill_credential(),
        *_fill_certificates(),
        *_fill_path(),
        *_fill_many_fields(),
        *(
            Kind(title="values with escapes", filled_with=text, path=f"{PATH}?{text}", credential=NO_KEY)
            for text in ("apikey=" + "%41" * 256, "apikey=" + "%41" * 5_000, "apikey=" + "%C3" * 256)
        ),
        Kind(title="values of 256 escapes that are counted by",
             path=f"{PATH}?tenant={'%41' * 256}&items={'%31' * 256}"),
        Kind(title="a long value that is counted by", path=f"{PATH}?tenant={'t' * READ}"),
        Kind(title="a value of 4,000 bytes under patterns", path=f"{PATH}?tenant={'ab' * 2_000}"),
        Kind(title="16 costs", path=f"{PATH}?{'&'.join(['items=1'] * 16)}"),
        Kind(title="16 empty keys", path=f"{PATH}?{'apikey=&' * 16}"),
        Kind(title="100 context extensions",
             context={f"name-{number}": "v" * 100 for number in range(100)}),
        Kind(title="a body of 60,000 bytes", body="x" * 60_000),
        Kind(title="several of these at once", path=f"{PATH}?{repeat('&apike', READ)}",
             fields=(*((f"x-f{number}", repeat("é", 300)) for number in range(80)),
                     ("cookie", repeat("a=1; ", 12_000)), ("x-tenant", "t" * 2_000))),
    ]  # fmt: skip


def list_token_kinds(private_key: PrivateKey) -> list[Kind]:
    """Bearer tokens that were never seen before. The first is the ordinary one."""
    numbers = count()
    now_s = SystemClock().now_us() // 1_000_000

    def write(value: object) -> str:
        text = value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))
        return base64.urlsafe_b64encode(text.encode()).rstrip(b"=").decode()

    def forge(header: Mapping[str, object], claims: object) -> Callable[[], str]:
        signed = f"{write({'alg': 'RS256', **header})}.{write(claims)}"
        return lambda: f"{signed}.{write(f'{next(numbers):0256d}')}"

    claims = {"iss": ISSUER, "aud": "httpbin", "exp": now_s + 86_400, "azp": "abc123"}
    nested = "[" * 5_000 + "]" * 5_000
    made: dict[str, Callable[[], str]] = {
        "an ordinary token": lambda: sign_token(private_key, now_s),
        "a forged token": forge({}, claims),
        "a claim of 11,000 bytes": forge({}, {**claims, "x": "a" * 11_000}),
        "a claim of 1,800 escapes": forge({}, json.dumps({**claims, "x": "é" * 1_800})),
        "a header of 11,000 bytes": forge({"x": "a" * 10_800}, claims),
        "a header of 1,200 members": forge({f"m{n}": 1 for n in range(1_200)}, claims),
        "1,200 claims": forge({}, {**claims, **{f"m{n}": 1 for n in range(1_200)}}),
        "3,000 empty objects": forge({}, {**claims, "x": [{}] * 3_000}),
        "1,100 claims with an empty object each": forge(
            {}, {**claims, **{f"{n:x}": {} for n in range(1_100)}}
        ),
        "5,000 elements, and issuers": forge(
            {}, {"x": [1] * 5_000, "y": [{"iss": ISSUER}] * 3, **claims}
        ),
        "500 claims with escapes": forge(
            {}, json.dumps({**claims, **{f"é{n}": {} for n in range(240)}})
        ),
        "64 values in a header": forge({f"é{n}": {} for n in range(30)}, claims),
        "5,000 scopes": forge({}, {**claims, "scope": " ".join(["s"] * 5_000)}),
        "2,800 audiences": forge({}, {**claims, "aud": ["a"] * 2_800}),
        "5,000 brackets": forge({}, f'{{"iss":"{ISSUER}","x":{nested}}}'),
        "a number of 4,000 digits": forge({}, {**claims, "exp": 10**4_000}),
        "an opaque token of 16,000 letters": lambda: f"{next(numbers):016d}" * 1_000,
        "an opaque token of 58,000 dots": lambda: f"{next(numbers)}" + "." * FULL,
    }
    return [Kind(title=title, tokens=tokens) for title, tokens in made.items()]
