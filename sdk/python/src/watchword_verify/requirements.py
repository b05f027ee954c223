"""Requirements: what a token must meet beside being good.

They read as in Watchword's Go package verify::

    verifier.verify(token, claim("ship", "acc"), any_of(scope("orders:read"), amr("otp")))
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, replace

from ._errors import Reauthentication, VerifyError
from ._token import Token, is_scope

__all__ = ["Requirement", "acr", "all_of", "amr", "any_of", "claim", "fresh_auth", "scope", "that"]

_ANYBODY = "any valid token"
_NOBODY = "nobody may"
_AND = " and "
_OR = " or "
_NANOSECONDS = 10**9

# By how much an issuer may date nbf back, in seconds.
_MAX_DATED_BACK = 300


# An outcome is the sum of what is wrong. It is better than those that are greater.
_MET = 0
_WEAK = 1  # it would be met if the user authenticated again
_UNSCOPED = 2  # it would be met if the token had more scopes
_DENIED = 4  # neither would help


@dataclass(frozen=True, slots=True)
class _Verdict:
    """What a requirement says of a token."""

    outcome: int = _MET
    again: Reauthentication = Reauthentication()  # how to mend it, and what is needed, whether or not that is so

    def both(self, other: _Verdict) -> _Verdict:
        return _Verdict(self.outcome | other.outcome, self.again.both(other.again))


@dataclass(frozen=True, slots=True)
class Requirement:
    """A condition that a token must meet. The functions of this module make requirements."""

    text: str
    """What is required, such as ``ship=acc and (log=r or log=w)``. It is part of the answer to
    a request that is refused."""
    _judge: Callable[[Token, float, float], _Verdict]  # token, now, leeway
    _joint: str = ""  # what joins the parts of the text, if there are several

    def met(self, token: Token, now: float, leeway: float = 0) -> bool:
        """Report whether the token meets the requirement at a moment, in seconds since 1970."""
        return self._judge(token, now, leeway).outcome == _MET

    def __str__(self) -> str:
        return self.text


def claim(name: str, value: str) -> Requirement:
    """Require that the token holds the value under the name.

    A user who has several values has them in one claim, joined with commas: ``"log":"r,w"``
    holds r and w. A value written like that requires all that it lists.
    """
    values = value.split(",")
    return that(f"{name}={value}", lambda token: all(token.has_value(name, one) for one in values))


def that(text: str, test: Callable[[Token], bool]) -> Requirement:
    """Make a requirement from a function. The text says what is required."""

    def judge(token: Token, now: float, leeway: float) -> _Verdict:
        met: object = test(token)
        if inspect.isawaitable(met):  # which counts as true, whatever would come of it
            raise TypeError(f"the function of the requirement {text!r} is asynchronous")
        return _Verdict(_MET if met else _DENIED)

    return Requirement(text, judge)


def scope(*names: str) -> Requirement:
    """Require all of the scopes, such as ``orders:read``, in the token's scope (RFC 8693 §4.2, RFC 9068 §2.2.3).

    If a token lacks nothing but scopes, the answer is 403 ``insufficient_scope`` (RFC 6750 §3.1), which names all
    that the request needs, those that the token has as well. No token meets a scope of none, or of a name that
    cannot be a scope (RFC 6749 §3.3).
    """
    wanted = tuple(dict.fromkeys(names))
    if not wanted or not all(map(is_scope, wanted)):
        return that(_NOBODY, lambda token: False)
    return _curable(
        _AND.join(f"scope={one}" for one in wanted),
        _UNSCOPED,
        Reauthentication(scope=wanted),
        lambda token, now, leeway: set(wanted).issubset(token.scope),
        _AND if len(wanted) > 1 else "",
    )


def any_of(*of: Requirement) -> Requirement:
    """Require at least one of the requirements. No token meets any of none.

    If a token meets none of them, the answer is about the one that is met the soonest: by authenticating again,
    else by getting scopes, else by both. Of several like that it is about the first one.
    """

    def judge(token: Token, now: float, leeway: float) -> _Verdict:
        best = _Verdict(_DENIED)
        for one in of:
            verdict = one._judge(token, now, leeway)
            if verdict.outcome < best.outcome:
                best = verdict
        return best

    return Requirement(_join(of, _OR, _NOBODY), judge, _joint_of(of, _OR))


def all_of(*of: Requirement) -> Requirement:
    """Require every one of the requirements."""

    def judge(token: Token, now: float, leeway: float) -> _Verdict:
        worst = _Verdict()
        for one in of:
            worst = worst.both(one._judge(token, now, leeway))
        return worst

    return Requirement(_join(of, _AND, _ANYBODY), judge, _joint_of(of, _AND))


def fresh_auth(seconds: float) -> Requirement:
    """Require that the user has authenticated no longer ago than that, by the token's auth_time.

    Renewing a token is no authentication. No token without auth_time meets it, and none with an auth_time in the
    future, but for a clock that runs behind by the verifier's leeway, or by what the issuer allows for when it dates
    nbf back. Whole seconds count, one at least. No token meets a time that is zero or negative.
    """
    text = f"auth_time within {_duration(seconds)}"
    if not seconds > 0:
        return that(text, lambda token: False)
    most = max(int(seconds), 1)

    def test(token: Token, now: float, leeway: float) -> bool:
        if token.auth_time is None:
            return False
        too_old = now > token.auth_time + most + leeway
        in_future = token.auth_time > now + leeway + _dated_back(token)
        return not too_old and not in_future

    return _curable(text, _WEAK, Reauthentication(max_age=most), test)


def amr(*methods: str) -> Requirement:
    """Require that the user has authenticated by at least one of the methods, such as ``otp`` or ``hwk`` (RFC 8176).

    The methods are those of the whole session. No token meets an amr of none.
    """
    return _one_of("amr", methods, Reauthentication(), lambda token: token.amr)


def acr(*values: str) -> Requirement:
    """Require that the token's acr is one of the values, such as ``aal2``. No token meets an acr of none."""
    return _one_of("acr", values, Reauthentication(acr_values=values), lambda token: (token.acr,))


def judge(required: tuple[Requirement, ...], token: Token, now: float, leeway: float) -> None:
    """Raise VerifyError if the token does not meet a requirement. What neither an authentication nor scopes would
    change comes first. If both are lacking, the client gets both at once: it authenticates its user again and asks
    for the scopes (RFC 9470 §3).
    """
    total, lacking = _Verdict(), []
    for one in required:
        verdict = one._judge(token, now, leeway)
        total = total.both(verdict)
        if verdict.outcome >= _DENIED:
            raise VerifyError("forbidden", f"the token does not give the right to this request: {one}")
        if verdict.outcome != _MET:
            lacking.append(one)
    if not lacking:
        return
    text, again = all_of(*lacking).text, total.again
    if total.outcome == _UNSCOPED:
        detail = f"the token does not give the right to this request: {text}"
        raise VerifyError("forbidden", detail, scope=again.scope)
    if total.outcome == _WEAK:
        again = replace(again, scope=())
    detail = f"the user has to authenticate again, or by another method: {text}"
    raise VerifyError("reauthentication_required", detail, again=again)


def _dated_back(token: Token) -> float:
    """Return by how much the token may be used before it was issued, by a clock that runs behind."""
    if token.not_before is None:
        return 0
    return min(max(0, token.issued_at - token.not_before), _MAX_DATED_BACK)


def _one_of(
    name: str, values: tuple[str, ...], again: Reauthentication, has: Callable[[Token], tuple[str, ...]]
) -> Requirement:
    wanted = [value for value in values if value]
    if not wanted:
        return that(_NOBODY, lambda token: False)
    return _curable(
        _OR.join(f"{name}={value}" for value in wanted),
        _WEAK,
        again,
        lambda token, now, leeway: any(one in wanted for one in has(token)),
        _OR if len(wanted) > 1 else "",
    )


def _curable(
    text: str, lacking: int, again: Reauthentication, test: Callable[[Token, float, float], bool], joint: str = ""
) -> Requirement:
    """Make a requirement that a token does not meet until its client has got another one, as again says. Until
    then, lacking is the outcome.
    """

    def judge(token: Token, now: float, leeway: float) -> _Verdict:
        return _Verdict(_MET if test(token, now, leeway) else lacking, again)

    return Requirement(text, judge, joint)


def _join(of: tuple[Requirement, ...], joint: str, empty: str) -> str:
    """Join the texts. A part that is itself joined in the other way gets parentheses."""
    if len(of) == 1:
        return of[0].text
    return joint.join(f"({one})" if one._joint not in ("", joint) else one.text for one in of) or empty


def _joint_of(of: tuple[Requirement, ...], joint: str) -> str:
    match len(of):
        case 0:
            return ""
        case 1:
            return of[0]._joint
    return joint


def _duration(seconds: float) -> str:
    """Write a time as Go does, so that the answers of all languages are the same: 5m0s."""
    nanoseconds = round(seconds * _NANOSECONDS)
    if nanoseconds < 0:
        return "-" + _duration(-seconds)
    for unit, size in (("ns", 1), ("µs", 10**3), ("ms", 10**6)):
        if 0 < nanoseconds < size * 1000:
            return f"{nanoseconds / size:g}{unit}"
    whole, fraction = divmod(nanoseconds, _NANOSECONDS)
    minutes, rest = divmod(whole, 60)
    text = f"{rest}{f'.{fraction:09}'.rstrip('0') if fraction else ''}s"
    if minutes >= 60:
        return f"{minutes // 60}h{minutes % 60}m{text}"
    return f"{minutes}m{text}" if minutes else text
