"""Limit rules in Postgres."""

from dataclasses import asdict
from typing import Any, Final

import asyncpg

from meter.audit.audit_store import write_audit
from meter.audit.events import Actor, AuditEvent, changes_between
from meter.errors import Conflict, NotFound, UnknownReference
from meter.limits.limits import AppliesTo, CountedPer, LimitRule
from meter.postgres.pool import PostgresPool, acquire, queries
from meter.postgres.rows import from_row

_QUERIES: Final = queries("meter.limits")
_LIST_LIMIT_RULES: Final = _QUERIES["list_limit_rules"]
_GET_LIMIT_RULE: Final = _QUERIES["get_limit_rule"]
_LOCK_LIMIT_RULES: Final = _QUERIES["lock_limit_rules"]
_PUT_LIMIT_RULE: Final = _QUERIES["put_limit_rule"]
_DELETE_LIMIT_RULE: Final = _QUERIES["delete_limit_rule"]
_FIND_RULE_TARGET: Final = _QUERIES["find_rule_target"]

# Every check looks at every rule, so their number is bounded.
MOST_LIMIT_RULES: Final = 100


class LimitRuleStore:
    """Stores limit rules. Raises StoreUnavailable in an outage."""

    def __init__(self, pool: PostgresPool) -> None:
        self._pool = pool

    async def list_all(self) -> list[LimitRule]:
        """Return all rules, in order of their ids."""
        async with acquire(self._pool) as connection:
            rows = await connection.fetch(_LIST_LIMIT_RULES)
        return [_rule(row) for row in rows]

    async def get(self, rule_id: str) -> LimitRule:
        """Return one rule. Raises NotFound."""
        async with acquire(self._pool) as connection:
            row = await connection.fetchrow(_GET_LIMIT_RULE, rule_id)
        if row is None:
            raise _no_rule(rule_id)
        return _rule(row)

    async def put(self, actor: Actor, rule: LimitRule) -> bool:
        """Create a rule or change it. Returns whether it is new.

        Raises UnknownReference where the rule applies to a plan, account or key that does not
        exist, Conflict where there are MOST_LIMIT_RULES already.
        """
        async with acquire(self._pool) as connection, connection.transaction():
            await connection.execute(_LOCK_LIMIT_RULES)
            target = (rule.applies_to.value, rule.applies_id)
            if not await connection.fetchval(_FIND_RULE_TARGET, *target):
                raise UnknownReference(
                    f"there is no {_word(rule.applies_to)} with the id that the rule names"
                )
            rules = [_rule(row) for row in await connection.fetch(_LIST_LIMIT_RULES)]
            before = next((one for one in rules if one.id == rule.id), None)
            if before is None and len(rules) >= MOST_LIMIT_RULES:
                raise Conflict(f"there are {MOST_LIMIT_RULES} limit rules; remove one first")
            await connection.fetchval(
                _PUT_LIMIT_RULE,
                rule.id,
                rule.applies_to.value,
                rule.applies_id,
                rule.counted_per.value,
                rule.model_pattern,
                rule.requests_per_minute,
                rule.tokens_per_minute,
                rule.is_shadow,
                rule.requests_per_day,
                rule.requests_per_month,
            )
            changes = changes_between({} if before is None else _audited(before), _audited(rule))
            if changes:
                await write_audit(connection, actor, _event("limit.set", rule.id, changes))
        return before is None

    async def remove(self, actor: Actor, rule_id: str) -> None:
        """Remove a rule. Raises NotFound."""
        async with acquire(self._pool) as connection, connection.transaction():
            if await connection.fetchval(_DELETE_LIMIT_RULE, rule_id) is None:
                raise _no_rule(rule_id)
            await write_audit(connection, actor, _event("limit.removed", rule_id, {}))


def _event(action: str, rule_id: str, detail: dict[str, Any]) -> AuditEvent:
    return AuditEvent(action, f"limit:{rule_id}", None, detail)


def _no_rule(rule_id: str) -> NotFound:
    return NotFound(f"there is no limit rule '{rule_id}'")


def _audited(rule: LimitRule) -> dict[str, Any]:
    words = {"applies_to": _word(rule.applies_to), "counted_per": _word(rule.counted_per)}
    return {name: value for name, value in asdict(rule).items() if name != "id"} | words


def _word(one: AppliesTo | CountedPer) -> str:
    """Return the API's word, which administrators read here too: an account is a user there."""
    return "user" if one.value == "account" else one.value


def _rule(row: asyncpg.Record) -> LimitRule:
    return from_row(
        LimitRule,
        row,
        applies_to=AppliesTo(row["applies_to"]),
        counted_per=CountedPer(row["counted_per"]),
    )
