"""Files of usage, transactions, payments and invoices, for an account and for administrators."""

from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from typing import TYPE_CHECKING, Annotated, Any, Final

from fastapi import APIRouter, Depends, Query, Response
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, ConfigDict, Field

from meter.api.authentication import AdministratorsOnly, FromReader, WithKey
from meter.api.fields import MAX_CURSOR_CHARS, AccountId
from meter.api.periods import FirstDay, LastDay, read_period
from meter.api.services import FromAccounts, FromClock, FromCursors, FromExports
from meter.errors import MeterError
from meter.exports.export import Export, ExportKind
from meter.exports.export_stream import stalled_after
from meter.exports.file_formats import FileFormat

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

router = APIRouter(prefix="/api/v1", tags=["Exports"])

_FILE: Final[dict[str, Any]] = {"schema": {"type": "string"}}
_FILES: Final[dict[int | str, dict[str, Any]]] = {
    200: {
        "description": "The file. It is complete if its last line is there: `#end` with the number "
        "of rows in CSV, an object with the member `end` in JSON Lines.",
        "content": {"text/csv": _FILE, "application/jsonl": _FILE},
    }
}


class ExportQuery(BaseModel):
    """The part of the books in the file. Days are those of UTC."""

    model_config = ConfigDict(extra="forbid")

    format: Annotated[FileFormat, Query(description="CSV or JSON Lines")] = FileFormat.CSV
    first: FirstDay = None
    last: LastDay = None
    cursor: Annotated[
        str | None,
        Query(
            max_length=MAX_CURSOR_CHARS,
            description="The cursor in the last line of a file that was not the last; with the "
            "same `from` and `to`",
        ),
    ] = None


class AllExportQuery(ExportQuery):
    """The part of the books in the file, of one user or of all."""

    user_id: Annotated[AccountId | None, Field(description="By default all users")] = None


class _FileResponse(StreamingResponse):
    """A streamed file that gives its place back however the exchange ends."""

    def __init__(self, *given: Any, place: ExitStack, **named: Any) -> None:
        super().__init__(*given, **named)
        self._place = place

    async def __call__(self, scope: "Scope", receive: "Receive", send: "Send") -> None:
        with self._place:
            try:
                async with stalled_after():
                    await super().__call__(scope, receive, send)
            except (MeterError, TimeoutError):
                # The reply lacks its end, so that the server closes the connection.
                return


@dataclass(frozen=True, slots=True)
class Files:
    """Makes the replies of both routes."""

    exports: FromExports
    cursors: FromCursors
    clock: FromClock

    async def reply(
        self,
        kind: ExportKind,
        query: ExportQuery,
        account_id: str | None,
        is_for_administrators: bool,
    ) -> Response:
        """Return the streamed file.

        Raises ProblemError (422) for a period that ends before it begins or is too long, and
        TooManyExports.
        """
        first, last = read_period(query.first, query.last, self.clock)
        scope = f"export:{kind}:{account_id}:{first}:{last}"
        place = self.cursors.open(scope, query.cursor)
        export = Export(
            kind,
            account_id,
            datetime.combine(first, time.min, UTC),
            datetime.combine(last + timedelta(days=1), time.min, UTC),
            is_for_administrators,
            None if place is None else tuple(str(part) for part in place),
        )
        encoder = query.format.encoder(export.columns)
        with ExitStack() as stack:
            stack.enter_context(self.exports.slots.taken(export))
            horizon = await self.exports.begin(export)
            chunks = self.exports.chunks(
                export, horizon, encoder, lambda where: self.cursors.seal(scope, where)
            )
            name = f"tollkeeper-{kind}-{first}-{last}.{query.format}"
            return _FileResponse(
                chunks,
                media_type=encoder.media_type,
                headers={"Content-Disposition": f'attachment; filename="{name}"'},
                place=stack.pop_all(),
            )


FromFiles = Annotated[Files, Depends()]


@router.get(
    "/exports/{kind}",
    summary="Download your usage, transactions, payments or invoices",
    dependencies=WithKey,
    response_class=Response,
    responses=_FILES,
)
async def export_own(
    caller: FromReader, kind: ExportKind, query: Annotated[ExportQuery, Query()], files: FromFiles
) -> Response:
    """Return a file, oldest rows first; 366 days and 1,000,000 rows at most.

    A file that was not cut short ends with a line that has the number of rows, and a cursor where
    more rows are left.
    """
    return await files.reply(kind, query, caller.account_id, is_for_administrators=False)


@router.get(
    "/admin/exports/{kind}",
    summary="Download usage, transactions, payments or invoices of users",
    dependencies=AdministratorsOnly,
    response_class=Response,
    responses=_FILES,
)
async def export_all(
    kind: ExportKind,
    query: Annotated[AllExportQuery, Query()],
    accounts: FromAccounts,
    files: FromFiles,
) -> Response:
    """Return a file of one user or of all, user by user, oldest rows first.

    Usage has the provider's cost. 366 days and 1,000,000 rows at most, as for users.
    """
    if query.user_id is not None:
        await accounts.get(query.user_id)
    return await files.reply(kind, query, query.user_id, is_for_administrators=True)
