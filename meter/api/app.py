"""The ASGI application: one resource a module, put together here."""

from importlib import metadata
from typing import Any, Final

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from meter.api import description, problems
from meter.api.admin import (
    audit_log,
    catalogue,
    debts,
    holds,
    identities,
    issuers,
    ledger,
    limit_rules,
    lookups,
    plans,
    policy_decisions,
    providers,
    reconciliations,
    settlement_conflicts,
    signing_keys,
    transactions,
    usage,
    users,
)
from meter.api.admin import credits as credits_
from meter.api.billing import (
    auto_top_up,
    buy_page,
    comparisons,
    coupons,
    go_live,
    payments,
    return_page,
    user_billing,
    webhook,
)
from meter.api.billing import own as own_billing
from meter.api.billing import plans as sold_plans
from meter.api.billing import subscription as subscriptions
from meter.api.bodies import BodyGuard
from meter.api.cursors import Cursors
from meter.api.exports import files, sinks
from meter.api.exports import webhooks as event_webhooks
from meter.api.heads import HeadAsGet
from meter.api.keys import own_keys, passes, user_keys, user_provider_keys
from meter.api.observation import ApiMetrics, RequestObserver
from meter.api.own import account as own_account
from meter.api.own import openrouter as own_openrouter
from meter.api.own import provider_keys as own_provider_keys
from meter.api.own import token_counts
from meter.api.problems import ProblemError
from meter.api.public import (
    clusters,
    documentation,
    health,
    key_reports,
    models,
    provider_reports,
    well_known,
)
from meter.api.routing import aliases, routes
from meter.api.services import ApiDependencies
from meter.errors import MeterError
from meter.exports.export_store import ExportStore
from meter.exports.export_stream import ExportStreams

_RESOURCES: Final = (
    # First: Envoy asks it four times a second and more, and routes are looked through in order.
    health,
    clusters,
    # Stripe tells of a payment several times.
    webhook,
    users,
    user_keys,
    user_provider_keys,
    credits_,
    transactions,
    usage,
    plans,
    debts,
    payments,
    user_billing,
    comparisons,
    go_live,
    coupons,
    providers,
    routes,
    aliases,
    catalogue,
    holds,
    lookups,
    policy_decisions,
    ledger,
    settlement_conflicts,
    reconciliations,
    limit_rules,
    audit_log,
    provider_reports,
    key_reports,
    return_page,
    buy_page,
    own_account,
    own_openrouter,
    own_billing,
    sold_plans,
    subscriptions,
    auto_top_up,
    files,
    sinks,
    event_webhooks,
    own_keys,
    own_provider_keys,
    passes,
    identities,
    issuers,
    signing_keys,
    well_known,
    token_counts,
    models,
    documentation,
)


def create_app(outside: ApiDependencies) -> FastAPI:
    """Return the application with these dependencies; one for each process and registry."""
    app = _routes()
    services = outside.services
    app.state.dependencies = outside
    app.state.cursors = Cursors(services.pepper)
    app.state.exports = ExportStreams(ExportStore(services.pool), outside.registry)
    app.state.catalogue = models.RenderedCatalogue(
        services.catalogue, services.routing, services.clock
    )
    app.state.running_reports = key_reports.RunningReports()
    app.state.report_metrics = provider_reports.ReportMetrics(outside.registry)
    metrics = ApiMetrics(outside.registry)
    app.add_middleware(BodyGuard)
    app.add_middleware(HeadAsGet)
    # Added last, so that it is the outermost.
    app.add_middleware(RequestObserver, clock=services.clock, metrics=metrics)
    return app


def openapi_document() -> dict[str, Any]:
    """Return the document of `/openapi.json`; needs nothing from outside."""
    return _routes().openapi()


def _routes() -> FastAPI:
    app = FastAPI(
        version=metadata.version("tollkeeper"),
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        generate_unique_id_function=lambda route: route.name,
    )
    app.add_exception_handler(ProblemError, problems.answer_problem)
    app.add_exception_handler(MeterError, problems.answer_meter_error)
    app.add_exception_handler(HTTPException, problems.answer_http_error)
    app.add_exception_handler(RequestValidationError, problems.answer_invalid_request)
    for resource in _RESOURCES:
        app.include_router(resource.router)
    app.state.all_routes = [route for resource in _RESOURCES for route in resource.router.routes]

    def described() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = description.describe(app, app.version)
        return app.openapi_schema

    app.openapi = described  # type: ignore[method-assign]
    return app
