"""The records of ``GET /generation``: none until some time after the end."""

import json
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from tollkeeper.simulator.answers.answering import Answer
from tollkeeper.simulator.bill import Bill
from tollkeeper.simulator.catalogue import Catalogue

GENERATIONS_KEPT = 100_000
"""Number of generations whose end is kept; for older ones there is only the bill."""


@dataclass(slots=True)
class Ending:
    """The end of a generation. ``ended_at`` is None while it is being sent."""

    ended_at: datetime | None = None
    is_cancelled: bool = False


class Generations:
    """The endings of this process's generations, over the rows of the bill."""

    def __init__(
        self, bill: Bill, catalogue: Catalogue, delay_ms: int, now: Callable[[], datetime]
    ) -> None:
        self._bill = bill
        self._catalogue = catalogue
        self._delay = timedelta(milliseconds=delay_ms)
        self._now = now
        self._endings: OrderedDict[str, Ending] = OrderedDict()

    def begin(self, answer: Answer) -> None:
        self._endings[answer.generation_id] = Ending()
        if len(self._endings) > GENERATIONS_KEPT:
            self._endings.popitem(last=False)

    def end(self, answer: Answer, is_cancelled: bool) -> None:
        self._endings[answer.generation_id] = Ending(self._now(), is_cancelled)

    def find(self, generation_id: str) -> bytes | None:
        """Return the record as JSON, or None while OpenRouter would not know it yet.

        Generations of before a restart have ended: they are known at once, as not cancelled.
        """
        row = self._bill.find(generation_id)
        ending = self._endings.get(generation_id, Ending(datetime.min))
        if row is None or not row.has_record:
            return None
        if ending.ended_at is None:
            return None
        # Of a generation of before a restart, the end is not known: its row is from its beginning.
        ended_at = ending.ended_at
        if ended_at == datetime.min:
            ended_at = datetime.fromisoformat(row.at) - self._delay
        recorded_at = ended_at + self._delay + timedelta(milliseconds=row.record_delay_ms)
        if self._now() < recorded_at:
            return None
        is_zero = self._now() < recorded_at + timedelta(milliseconds=row.record_zero_ms)
        cost = "0" if is_zero else row.cost
        model = self._catalogue.find(row.model)
        record = {
            "id": row.generation_id,
            "upstream_id": None,
            "model": row.model,
            "provider_name": model.provider if model is not None else None,
            "created_at": row.at,
            "is_byok": False,
            "cancelled": ending.is_cancelled,
            "streamed": row.is_streamed,
            "finish_reason": row.finish_reason,
            "native_finish_reason": row.finish_reason,
            "tokens_prompt": row.prompt_tokens,
            "tokens_completion": row.completion_tokens,
            "native_tokens_prompt": row.prompt_tokens,
            "native_tokens_completion": row.completion_tokens,
            "native_tokens_reasoning": row.reasoning_tokens,
            "native_tokens_cached": row.cached_tokens,
        }
        # The cost goes in as text: it is a decimal, and json would make it a float.
        costs = f',"total_cost":{cost},"usage":{cost}'
        return f'{{"data":{json.dumps(record)[:-1]}{costs}}}}}'.encode()
