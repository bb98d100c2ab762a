"""Random v2 requests. Indices are told from the sequence's start; keys stand below a directory of the sequence."""

from typing import Any

from hypothesis import strategies as st

from tests.differential.v2_servers import CLIENTS

#: ``@`` is the directory of the sequence; what doesn't begin with it is above it.
KEYS = ["@", "@/", "@/a", "@/b", "@/d", "@/d/a", "@/d/e/f", "@/_h", "@/d/_h", "@/d/_h/x", "@/b/", "@/é<&>", "@//a", "/"]
FEW = ["@/a", "@/a", "@/a", "@/d/a", "@/d/a", "@/d", "@/d/_h", "@/b"]
key, few = st.sampled_from(KEYS), st.sampled_from(FEW)
value = st.sampled_from(["", "one", "two", "<é&\u2028>", "a+b c", "\udcff"])
some_value = st.sampled_from(["one", "two"])
boolean = st.sampled_from(["true", "true", "false", "1", "F", "yes", ""])
ttl = st.sampled_from(["1000", "1000", "2000", "", "x", "-1", "1e3", "99999999999"])
#: an int is an index from the sequence's start
index = st.one_of(st.integers(0, 14), st.integers(0, 14), st.sampled_from(["x", "", "-1", "00", "1"]))
FIELDS: dict[str, st.SearchStrategy[Any]] = {
    "value": value,
    "dir": boolean,
    "ttl": ttl,
    "prevExist": boolean,
    "prevValue": value,
    "prevIndex": index,
    "refresh": boolean,
    "recursive": boolean,
    "sorted": boolean,
    "quorum": boolean,
    "noValueOnSuccess": boolean,
    "wait": st.sampled_from(["false", "x", "true"]),
    "waitIndex": st.sampled_from(["x", "-1", "5"]),
    "stream": st.sampled_from(["x", "false", "true"]),
}
ODD = st.sampled_from(["", "", "", "", "", "", "%zz=1", "a;b", "value=one&value=two", "unknown=1"])
#: Requests that mean something, so that conditions hold as often as not.
MEANT: dict[str, st.SearchStrategy[Any]] = {
    "value": some_value,
    "prevValue": some_value,
    "prevIndex": st.integers(1, 14),
    "ttl": st.just("1000"),
    "prevExist": st.sampled_from(["true", "true", "false"]),
    **{name: st.just("true") for name in ("dir", "recursive", "refresh", "sorted", "quorum", "noValueOnSuccess")},
}
SHAPES = [
    *[("PUT", "value")] * 5, ("PUT", "value ttl"), ("PUT", "dir"), ("PUT", "dir ttl"), ("PUT", "value prevExist"),
    ("PUT", "value prevExist ttl"), ("PUT", "prevExist refresh ttl"), ("PUT", "refresh ttl"),
    ("PUT", "value prevValue"), ("PUT", "value prevValue ttl"), ("PUT", "value prevIndex"),
    ("PUT", "value prevIndex prevExist"), ("PUT", "prevIndex refresh ttl"), ("PUT", "dir prevExist ttl"),
    ("PUT", "value noValueOnSuccess"), ("POST", "value"), ("POST", "value ttl"), ("POST", "dir"),
    ("DELETE", ""), ("DELETE", "recursive"), ("DELETE", "recursive"), ("DELETE", "dir"), ("DELETE", "prevValue"),
    ("DELETE", "prevIndex"), ("GET", ""), ("GET", "recursive"), ("GET", "recursive sorted"), ("GET", "quorum"),
    ("HEAD", ""),
]  # fmt: skip
client = st.integers(0, CLIENTS - 1)
#: How often each method is drawn of those that mean little.
METHODS = ["GET", "PUT", "PUT", "PUT", "POST", "DELETE", "DELETE", "HEAD", "PATCH"]
USERS = [("", ""), ("", ""), ("root", "pw"), ("alice", "pw"), ("alice", "no"), ("bob", "pw"), ("nobody", "pw")]
#: Auth's sequences: nobody, or somebody by name and password.
user = st.sampled_from(USERS)
nobody = st.just(("", ""))


def meant(who: Any) -> st.SearchStrategy[Any]:
    @st.composite
    def one(draw: Any) -> Any:
        method, names = draw(st.sampled_from(SHAPES))
        fields = {name: draw(MEANT[name]) for name in names.split()}
        return "Keys", draw(client), method, draw(few), fields, draw(st.booleans()), "", draw(who)

    return one()


@st.composite
def odd(draw: Any) -> Any:
    method = draw(st.sampled_from(METHODS))
    names = draw(st.lists(st.sampled_from(sorted(FIELDS)), max_size=4, unique=True))
    fields = {name: draw(FIELDS[name]) for name in names}
    if method == "GET" and fields.get("wait") == "true":
        del fields["wait"]  # that is a watch
    return "Keys", draw(client), method, draw(key), fields, draw(st.booleans()), draw(ODD), ("", "")


def watches(who: Any) -> st.SearchStrategy[Any]:
    @st.composite
    def one(draw: Any) -> Any:
        fields: dict[str, Any] = {"wait": "true"}
        for name in ("recursive", "stream"):
            if draw(st.booleans()):
                fields[name] = "true"
        if (
            since := draw(st.one_of(st.none(), st.none(), st.integers(0, 16), st.sampled_from(["1", "0"])))
        ) is not None:
            fields["waitIndex"] = since
        if not draw(st.integers(0, 15)):
            fields["quorum"] = "true"
        return "Watch", draw(client), draw(st.one_of(few, st.just("@"))), fields, draw(who)

    return one()


# -- the other pages ------------------------------------------------------------------------------------------

PAGES = ["/v2/machines", "/v2/members", "/v2/members/", "/v2/members/leader", "/v2/members/x", "/v2/members/1234",
         "/v2/stats/self", "/v2/stats/store", "/v2/stats/leader", "/v2/stats", "/v2/auth/enable", "/v2/auth/users",
         "/v2/auth/roles", "/v2/auth", "/v2/auth/none", "/v2/auth/users/x/y", "/v2"]  # fmt: skip
PEERS = ['{"peerURLs":[]}', '{"peerURLs":["nonsense"]}', '{"peerURLs":["http://a"]}', '{"peerURLs":["http://a:1/b"]}',
         "{}"]  # fmt: skip
KINDS = ["application/json", "application/json; charset=utf-8", "text/plain", ""]


@st.composite
def pages(draw: Any) -> Any:
    path = draw(st.sampled_from(PAGES))
    if path.startswith("/v2/members"):
        method = draw(st.sampled_from(["GET", "GET", "POST", "PUT", "DELETE", "HEAD"]))
    elif path.startswith("/v2/auth"):
        method = draw(st.sampled_from(["GET", "HEAD", "POST"]))
    else:
        method = draw(st.sampled_from(["GET", "GET", "HEAD", "POST", "DELETE"]))
    return "Page", draw(client), method, path, draw(st.sampled_from(PEERS)), draw(st.sampled_from(KINDS)), ("", "")


# -- users and roles ------------------------------------------------------------------------------------------

name = st.sampled_from(["root", "alice", "alice", "bob", "_x"])
role = st.sampled_from(["root", "guest", "r", "r", "s", "none"])
pattern = st.sampled_from(["@/*", "@/a", "@/d/*", "/*", "@*"])
patterns = st.one_of(st.none(), st.lists(pattern, max_size=2, unique=True))
rights = st.builds(lambda read, write: {"kv": {"read": read, "write": write}}, patterns, patterns)
roles = st.lists(role, min_size=1, max_size=2, unique=True)
#: Most changes come from root; some from who may not.
changer = st.sampled_from([("root", "pw")] * 5 + USERS)


@st.composite
def auth(draw: Any) -> Any:
    """A request on ``/v2/auth``: method, path, body."""
    which = draw(st.integers(0, 13))
    who = draw(changer)
    if which < 4:
        named = draw(name)
        asked: dict[str, Any] = {"user": named}
        for field, made in (("password", st.sampled_from(["pw", "no", ""])), ("roles", roles)):
            if draw(st.booleans()):
                asked[field] = draw(made)
        if draw(st.booleans()):
            asked[draw(st.sampled_from(["grant", "revoke"]))] = draw(roles)
        return "Auth", draw(client), "PUT", f"users/{draw(st.sampled_from([named] * 9 + ['other']))}", asked, who
    if which < 8:
        named = draw(role)
        asked = {"role": named}
        for field in draw(st.sampled_from([["permissions"], ["permissions"], ["grant"], ["revoke"], ["grant", "revoke"],
                                           ["permissions", "grant"], []])):  # fmt: skip
            asked[field] = draw(rights)
        return "Auth", draw(client), "PUT", f"roles/{draw(st.sampled_from([named] * 9 + ['other']))}", asked, who
    if which < 10:
        path = draw(st.one_of(name.map("users/".__add__),
                              role.map("roles/".__add__)))  # fmt: skip
        return "Auth", draw(client), "DELETE", path, None, who
    if which < 12:
        path = draw(st.sampled_from(["users", "roles", "users/", "users/root", "users/alice", "roles/r", "roles/guest",
                                     "roles/root", "roles/none", "users/_x", "enable"]))  # fmt: skip
        return "Auth", draw(client), "GET", path, None, who
    if which < 13:
        return "Auth", draw(client), "PUT", draw(st.sampled_from(["users/x", "roles/x"])), "not JSON", who
    return "Auth", draw(client), draw(st.sampled_from(["PUT", "PUT", "DELETE"])), "enable", None, who


#: root, and alice who may read and write some keys; guests may only read.
SET_UP = [
    ("Auth", 0, "PUT", "users/root", {"user": "root", "password": "pw"}, ("", "")),
    ("Auth", 0, "PUT", "roles/r", {"role": "r", "permissions": {"kv": {"read": ["@/*"], "write": ["@/a", "@/d/*"]}}},
     ("", "")),
    ("Auth", 0, "PUT", "users/alice", {"user": "alice", "password": "pw", "roles": ["r"]}, ("", "")),
    ("Auth", 0, "PUT", "roles/guest", {"role": "guest", "permissions": {"kv": {"read": ["@/*"]}}}, ("", "")),
    ("Auth", 0, "PUT", "enable", None, ("", "")),
]  # fmt: skip
plain_meant = meant(nobody)
steps = st.one_of(*[plain_meant] * 6, odd(), odd(), watches(nobody), watches(nobody), pages())
sequences = st.lists(steps, min_size=12, max_size=26)
auth_sequences = st.builds(
    lambda first, rest: [*first, *rest],
    st.sampled_from([SET_UP, SET_UP, []]),
    st.lists(st.one_of(auth(), auth(), meant(user), meant(user), watches(user)), min_size=6, max_size=14),
)
#: Keys that end: a file, a directory with a key in it, one that is refreshed, one whose TTL is taken away; all watched.
EXPIRY = [
    ("Watch", 0, "@", {"wait": "true", "recursive": "true", "stream": "true"}, ("", "")),
    ("Watch", 1, "@/d/a", {"wait": "true"}, ("", "")),
    ("Keys", 0, "PUT", "@/kept", {"value": "one", "ttl": "1"}, True, "", ("", "")),
    ("Keys", 0, "PUT", "@/kept", {"value": "two", "ttl": "", "prevExist": "true"}, True, "", ("", "")),
    ("Keys", 0, "PUT", "@/a", {"value": "one", "ttl": "1"}, True, "", ("", "")),
    ("Gone", 0, "@/a"),
    ("Keys", 0, "PUT", "@/d", {"dir": "true", "ttl": "1"}, True, "", ("", "")),
    ("Keys", 0, "PUT", "@/d/a", {"value": "one"}, True, "", ("", "")),
    ("Gone", 0, "@/d"),
    ("Keys", 0, "PUT", "@/b", {"value": "one", "ttl": "1"}, True, "", ("", "")),
    ("Keys", 0, "PUT", "@/b", {"refresh": "true", "ttl": "1000", "prevExist": "true"}, True, "", ("", "")),
    ("Keys", 0, "PUT", "@/past", {"value": "one", "ttl": "0"}, True, "", ("", "")),
    ("Gone", 0, "@/past"),
    ("Keys", 0, "GET", "@", {"recursive": "true", "sorted": "true"}, True, "", ("", "")),
]  # fmt: skip
