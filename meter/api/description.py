"""The OpenAPI document: what FastAPI derives from the routes, and the parts it cannot derive."""

from typing import Any, Final

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from meter.api import inference
from meter.api.client_paths import is_of_clients
from meter.api.problems import PROBLEM_MEDIA_TYPE, ProblemReply

_TITLE: Final = "Tollkeeper API"
_DESCRIPTION: Final = """
Inference, and the users, API keys, credit, usage and ledger behind it.

- Money is a decimal string in US dollars; one credit is one dollar.
- Lists come in pages: pass `next_cursor` as `cursor` until it is null.
- Errors are problem details (RFC 9457) with a stable `code`. The inference routes and the model
  routes answer errors in OpenAI's shape instead, for OpenAI's clients.
- Send a credential as `Authorization: Bearer <API key or JWT>`, or as `x-api-key: <the same>`.
  Administrators need the scope `admin:read` or `admin:write`, or send the operator token.
"""
_SERVERS: Final = [
    {"url": "/", "description": "The gateway from which this document was read"},
]
_TAGS: Final = {
    "Inference": "Call models. The gateway holds credit, asks the provider, and charges the usage.",
    "Models": "The models that may be called, with their prices.",
    "Your own": "The credit, transactions and usage of your account.",
    "Billing": "Buying credit for your account.",
    "Your own keys": "The API keys of your account.",
    "Passes": "JWTs that live for a short time and may do less than the key they were made with.",
    "Users": "Accounts, as administrators see and change them.",
    "API keys": "The API keys of users, as administrators make, change and revoke them.",
    "Identities": "Subjects of JWT issuers and client certificates that act for a user.",
    "Issuers": "The services whose JWTs are accepted.",
    "Signing keys": "The keys with which passes are signed.",
    "Credit": "Credit that administrators give or take back.",
    "Payments": "Credit that is sold through Stripe.",
    "Transactions and usage": "The ledger postings and the usage of an account.",
    "Exports": "Files of the books.",
    "Sinks": "Systems that usage is sent to, such as Lago.",
    "Webhooks": "Addresses at which accounts are told of events, signed as Standard Webhooks.",
    "Plans": "Terms that many users share.",
    "Limits": "Limits beside those of plans, users and keys.",
    "Catalogue": "Models that are not offered, doubted findings, and raised estimates.",
    "Providers": "The services that answer requests, and the keys with which they are called.",
    "Routes": "Which providers serve which models.",
    "Aliases": "Names of ours for models.",
    "Ledger": "Holds, verification, reconciliation, and requests whose usage was not reported.",
    "Audit log": "The record of who changed what, and when.",
    "Provider reports": "The webhook for a provider's reports of finished requests.",
    "Leaked keys": "Reports of API keys that were found in public.",
    "Health": "Liveness, readiness and metrics of the meter.",
}
_ROUTES_FOR_THIS_MACHINE: Final = ("/healthz", "/readyz", "/metrics")
# Routes whose callers present something else than a credential of ours.
_OTHER_SENDERS: Final = ("/api/v1/provider-reports", "/api/v1/webhooks")
# By operation: the codes with which it refuses a request that is well-formed.
_CODES: Final[dict[str, dict[int, tuple[str, ...]]]] = {
    "count_message_tokens": {400: ("invalid_value",)},
    "create_user": {409: ("conflict",), 422: ("unknown_reference",)},
    "change_user": {422: ("unknown_reference",)},
    "post_credit": {
        400: ("idempotency_key_required", "invalid_idempotency_key"),
        409: ("insufficient_available", "idempotency_key_reused", "balance_too_large"),
    },
    "buy_credit": {
        404: ("selling_off",),
        409: ("stripe_refused",),
        422: ("amount_not_sold",),
        503: ("stripe_unavailable",),
    },
    "open_portal": {404: ("selling_off",), 409: ("stripe_refused",), 503: ("stripe_unavailable",)},
    "list_own_invoices": {
        404: ("selling_off",),
        409: ("stripe_refused",),
        503: ("stripe_unavailable",),
    },
    "list_invoices_of_user": {
        404: ("selling_off",),
        409: ("stripe_refused",),
        503: ("stripe_unavailable",),
    },
    "open_portal_for_user": {
        404: ("selling_off",),
        409: ("stripe_refused",),
        503: ("stripe_unavailable",),
    },
    "get_auto_top_up_of_user": {404: ("not_found",)},
    "put_auto_top_up_of_user": {404: ("selling_off",), 422: ("amount_not_sold",)},
    "delete_auto_top_up_of_user": {404: ("not_found",)},
    "redeem_coupon_for_user": {
        404: ("coupon_not_valid",),
        409: ("coupon_redeemed", "coupon_of_other_plan"),
        429: ("too_many_attempts",),
    },
    "put_selling_terms": {422: ("amount_not_sold",)},
    "open_checkout_for_user": {
        404: ("selling_off",),
        409: ("stripe_refused",),
        422: ("amount_not_sold",),
        503: ("stripe_unavailable",),
    },
    "refund_payment": {
        400: ("idempotency_key_required", "invalid_idempotency_key"),
        404: ("selling_off",),
        409: ("stripe_refused",),
        503: ("stripe_unavailable",),
    },
    "get_auto_top_up": {404: ("not_found",)},
    "put_auto_top_up": {404: ("selling_off",), 422: ("amount_not_sold",)},
    "delete_auto_top_up": {404: ("not_found",)},
    "create_coupon": {409: ("conflict",), 422: ("unknown_reference",)},
    "redeem_coupon": {
        404: ("coupon_not_valid",),
        409: ("coupon_redeemed", "coupon_of_other_plan"),
        429: ("too_many_attempts",),
    },
    "create_own_webhook": {409: ("conflict",)},
    "create_webhook_for_user": {409: ("conflict",)},
    "put_sink": {409: ("conflict",)},
    "pause_sink": {409: ("conflict",)},
    "resume_sink": {409: ("conflict",)},
    "end_sink": {409: ("conflict",)},
    "export_own": {429: ("too_many_exports",)},
    "export_all": {429: ("too_many_exports",)},
    "get_generation": {404: ("generation_not_found",)},
    "get_subscription": {404: ("selling_off",)},
    "change_subscription": {
        404: ("selling_off",),
        409: ("stripe_refused",),
        503: ("stripe_unavailable",),
    },
    "cancel_subscription": {
        404: ("selling_off",),
        409: ("stripe_refused",),
        503: ("stripe_unavailable",),
    },
    "resume_subscription": {
        404: ("selling_off",),
        409: ("stripe_refused",),
        503: ("stripe_unavailable",),
    },
    "pause_subscription": {
        404: ("selling_off",),
        409: ("stripe_refused",),
        503: ("stripe_unavailable",),
    },
    "unpause_subscription": {
        404: ("selling_off",),
        409: ("stripe_refused",),
        503: ("stripe_unavailable",),
    },
    "pause_subscription_of": {
        404: ("selling_off",),
        409: ("stripe_refused",),
        503: ("stripe_unavailable",),
    },
    "unpause_subscription_of": {
        404: ("selling_off",),
        409: ("stripe_refused",),
        503: ("stripe_unavailable",),
    },
    "cancel_subscription_of": {
        404: ("selling_off",),
        409: ("stripe_refused",),
        503: ("stripe_unavailable",),
    },
    "sync_plans": {404: ("selling_off",), 409: ("stripe_refused",), 503: ("stripe_unavailable",)},
    "subscribe": {
        404: ("selling_off",),
        409: ("conflict", "stripe_refused"),
        503: ("stripe_unavailable",),
    },
    "subscribe_user": {
        404: ("selling_off",),
        409: ("conflict", "stripe_refused"),
        503: ("stripe_unavailable",),
    },
    "go_live": {404: ("selling_off",), 409: ("stripe_refused",), 503: ("stripe_unavailable",)},
    "compare_day": {
        404: ("selling_off",),
        409: ("conflict", "stripe_refused"),
        422: ("invalid_request",),
        503: ("stripe_unavailable",),
    },
    "replay_stripe_event": {404: ("selling_off",)},
    "post_stripe_event": {400: ("webhook_refused",), 404: ("selling_off",)},
    "create_key": {409: ("conflict",)},
    "change_key": {409: ("conflict",)},
    "suspend_key": {409: ("conflict",)},
    "resume_key": {409: ("conflict",)},
    "rotate_key": {409: ("conflict",)},
    "end_previous_secret": {409: ("conflict",)},
    "create_own_key": {403: ("not_permitted",), 409: ("conflict",)},
    "change_own_key": {403: ("not_permitted",), 409: ("conflict",)},
    "suspend_own_key": {403: ("not_permitted",), 409: ("conflict",)},
    "resume_own_key": {403: ("not_permitted",), 409: ("conflict",)},
    "rotate_own_key": {403: ("not_permitted",), 409: ("conflict",)},
    "end_own_previous_secret": {403: ("not_permitted",), 409: ("conflict",)},
    "revoke_own_key": {403: ("not_permitted",)},
    "exchange_for_pass": {403: ("not_permitted",), 409: ("conflict",)},
    "revoke_own_passes": {404: ("not_found",)},
    "issue_pass": {403: ("not_permitted",), 409: ("conflict",)},
    "link_identity": {409: ("conflict",), 422: ("unknown_reference",)},
    "put_issuer": {409: ("conflict",)},
    "remove_issuer": {409: ("conflict",)},
    "clear_raised_estimate": {404: ("not_found",)},
    "put_limit": {409: ("conflict",), 422: ("unknown_reference",)},
    "put_route": {409: ("conflict",), 422: ("unknown_reference",)},
    "put_alias": {409: ("conflict",), 422: ("unknown_reference",)},
    "create_provider": {409: ("conflict",), 422: ("base_url_refused",)},
    "change_provider": {409: ("conflict",), 422: ("base_url_refused",)},
    "delete_provider": {409: ("conflict",)},
    "import_provider_prices": {409: ("conflict",)},
    "put_provider_key": {
        409: ("conflict", "other_master_key"),
        422: ("provider_key_refused",),
        503: ("provider_unavailable",),
    },
    "reconcile": {409: ("conflict",)},
    "rotate_signing_key": {409: ("other_master_key",)},
    "report_key": {429: ("too_many_reports",)},
    "post_openrouter_reports": {401: ("unauthorized",), 404: ("route_not_found",)},
    "put_openrouter_reports": {401: ("unauthorized",), 404: ("route_not_found",)},
    **{
        f"{operation}{suffix}": {404: ("model_not_found",)}
        for operation in ("get_model", "describe_model")
        for _, suffix, _ in inference.BASES
    },
}


def describe(app: FastAPI, version: str) -> dict[str, Any]:
    """Return the OpenAPI document of the application and of the routes that Envoy serves."""
    document = get_openapi(
        title=_TITLE,
        version=version,
        description=_DESCRIPTION.strip(),
        routes=app.routes,
        servers=_SERVERS,
        tags=[{"name": name, "description": text} for name, text in _TAGS.items()],
        contact={"name": "The operator of this gateway"},
        license_info={"name": "Apache-2.0", "identifier": "Apache-2.0"},
    )
    schemas = document["components"]["schemas"]
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)
    problem = ProblemReply.model_json_schema(ref_template="#/components/schemas/{model}")
    schemas.update(problem.pop("$defs"))
    schemas["ProblemReply"] = problem
    schemas.update(inference.schemas())
    for path, operations in document["paths"].items():
        for operation in operations.values():
            operation.setdefault("security", [])
            for parameter in operation.get("parameters", ()):
                # The route answers a missing header itself, so the header looks optional.
                if parameter["name"] == "idempotency-key":
                    parameter.update(name="Idempotency-Key", required=True)
                # A parameter that is left out is None in Python, but no URL can contain a null.
                schema = parameter["schema"]
                given = schema.pop("anyOf", ())
                schema.update(
                    one for kind in given if kind.get("type") != "null" for one in kind.items()
                )
            _describe_errors(path, operation)
    document["paths"] = {**inference.paths(), **document["paths"]}
    return document


def _describe_errors(path: str, operation: dict[str, Any]) -> None:
    """Add the statuses of refusals and outages, each with its codes."""
    responses = operation["responses"]
    responses.pop("422", None)
    parameters = {one["name"]: one["in"] for one in operation.get("parameters", ())}
    codes: dict[int, tuple[str, ...]] = {
        413: ("request_too_large",),
        415: ("unsupported_media_type",),
    }

    def add(status: int, *more: str) -> None:
        codes[status] = codes.get(status, ()) + more

    if path not in _ROUTES_FOR_THIS_MACHINE:
        add(500, "internal_error")
        add(503, "unavailable")
    if operation["security"] and not path.startswith(_OTHER_SENDERS):
        add(400, "conflicting_credentials")
        add(401, "unauthorized")
        add(403, "insufficient_scope", "address_not_allowed", "account_suspended")
    if "requestBody" in operation:
        add(400, "invalid_json")
    if "cursor" in parameters:
        add(400, "invalid_cursor")
    if "requestBody" in operation or "query" in parameters.values():
        add(422, "invalid_request")
    if "from" in parameters:
        add(422, "invalid_period")
    if "path" in parameters.values() and not is_of_clients(path):
        add(404, "not_found")
        if operation["operationId"].endswith(("_limit", "_route", "_alias", "put_plan")):
            add(422, "invalid_request")
    for status, more in _CODES.get(operation["operationId"], {}).items():
        add(status, *more)
    for status, found in sorted(codes.items()):
        unique = tuple(dict.fromkeys(found))
        if is_of_clients(path):
            responses[str(status)] = inference.error(unique, path)
        else:
            responses[str(status)] = {
                "description": "`code` is " + " or ".join(f"`{code}`" for code in unique),
                "content": {
                    PROBLEM_MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/ProblemReply"}}
                },
            }
