"""The use that requests of a model usually make: what a charge by policy is guessed from. Pure.

A request costs what its prompt costs plus what its reply costs. The hold of a request bounds the
prompt, so a request with a longer prompt is guessed dearer; nothing tells the length of a reply
that nobody saw, so that is the usual one.
"""

from dataclasses import dataclass
from typing import Final

from meter.holds.hold import Hold
from meter.money import BPS_PER_WHOLE, add_markup
from meter.pricing.prices import PROMPT_OVERHEAD_TOKENS, Price, catalogue_cost
from meter.settlement.outcome import PriceSource, Settled
from meter.usage.usage import TokenCounts

# Where too few requests of a model are known: a hold counts each byte of a prompt as a token, and
# a token of ordinary text is some four bytes.
ASSUMED_BYTES_PER_TOKEN: Final = 4
ASSUMED_COMPLETION_TOKENS: Final = 256
# No event of a stream carries more than this around the text of a single token: so many bytes
# seen are at least so many tokens.
MOST_BYTES_PER_EVENT: Final = 1_024


@dataclass(frozen=True, slots=True)
class UsualUse:
    """Sums over the latest settled requests of one model and endpoint.

    `prompt_bound_picos` is what their holds allowed for their prompts and `prompt_picos` the part
    of their cost that their completion tokens do not explain; both are before markup.
    """

    requests: int
    prompt_bound_picos: int
    prompt_picos: int
    completion_tokens: int

    def plus(self, other: "UsualUse") -> "UsualUse":
        """Return the sums over the requests of both."""
        return UsualUse(
            self.requests + other.requests,
            self.prompt_bound_picos + other.prompt_bound_picos,
            self.prompt_picos + other.prompt_picos,
            self.completion_tokens + other.completion_tokens,
        )


def use_of(hold: Hold, price: Price, settled: Settled) -> UsualUse:
    """Return what one settled request adds to the usual use of its model."""
    completion_picos = settled.tokens.completion * price.completion_picos
    return UsualUse(
        requests=1,
        prompt_bound_picos=_bound_of(hold, price),
        prompt_picos=max(0, settled.cost_picos - completion_picos),
        completion_tokens=settled.tokens.completion,
    )


def prompt_bound_picos(amount_picos: int, max_tokens: int, markup_bps: int, price: Price) -> int:
    """Return the cost that a hold allows for the prompt and whatever else is no completion token.

    What every hold allows for the additions of providers is left out: it says nothing about the
    length of this prompt.
    """
    completion_picos = add_markup(max_tokens * price.dearest_completion_picos, markup_bps)
    charge_picos = max(0, amount_picos - completion_picos)
    cost_picos = charge_picos * BPS_PER_WHOLE // (BPS_PER_WHOLE + markup_bps)
    return max(0, cost_picos - PROMPT_OVERHEAD_TOKENS * price.dearest_prompt_picos)


def _bound_of(hold: Hold, price: Price) -> int:
    return prompt_bound_picos(hold.amount_picos, hold.max_tokens, hold.markup_bps, price)


def guess(
    hold: Hold,
    price: Price,
    usual: UsualUse | None,
    streamed_bytes: int,
    seen_tokens: TokenCounts | None = None,
) -> Settled:
    """Return the charge that such a request usually comes to, never above the hold.

    `usual` is None where too few requests of the model are known. `streamed_bytes` is what a client
    was sent of a stream: a reply has at least the tokens that were seen, and at most those that the
    hold allows. `seen_tokens` are those of usage that lacked a cost only: then our price decides.
    """
    # Of a hold that charges no fee for an own key, nothing can be read about the request.
    is_bounded = hold.own_key_fee_bps != 0
    if seen_tokens is not None:
        cost_picos = catalogue_cost(seen_tokens, price, hold.flat_cost_picos)
        return _within(hold, is_bounded, seen_tokens, cost_picos, PriceSource.CATALOGUE)
    bound_picos = _bound_of(hold, price) if is_bounded else 0
    if usual is None:
        prompt_picos = bound_picos // ASSUMED_BYTES_PER_TOKEN
        usual_tokens = ASSUMED_COMPLETION_TOKENS
    else:
        prompt_picos = usual.prompt_picos // usual.requests
        if usual.prompt_bound_picos and is_bounded:
            prompt_picos = bound_picos * usual.prompt_picos // usual.prompt_bound_picos
        usual_tokens = -(-usual.completion_tokens // usual.requests)
    tokens = min(hold.max_tokens, max(usual_tokens, streamed_bytes // MOST_BYTES_PER_EVENT))
    counts = TokenCounts(
        prompt=prompt_picos // price.prompt_picos if price.prompt_picos else 0,
        completion=tokens,
    )
    cost_picos = prompt_picos + tokens * price.completion_picos
    return _within(hold, is_bounded, counts, cost_picos, PriceSource.ESTIMATE)


def _within(
    hold: Hold, is_bounded: bool, tokens: TokenCounts, cost_picos: int, price_source: PriceSource
) -> Settled:
    """Return a charge that the hold covers, where it bounds one."""
    if is_bounded:
        most_picos = hold.amount_picos * BPS_PER_WHOLE // (BPS_PER_WHOLE + hold.markup_bps)
        cost_picos = min(most_picos, cost_picos)
    return Settled(tokens, cost_picos, add_markup(cost_picos, hold.markup_bps), price_source)
