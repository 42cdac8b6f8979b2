"""The fields of Kubernetes resources that our snippets may use, by what their owners document.

Trimmed to what is used: whatever is not here is a mistake or needs a look at the source first.
- Envoy Gateway v1alpha1: envoyproxy/gateway, api/v1alpha1/{ext_auth,securitypolicy,
  clienttrafficpolicy,envoyextensionypolicy,lua,envoypatchpolicy}_types.go, and
  gateway.envoyproxy.io/docs/api.
- Istio: istio/api, security/v1/authorization_policy.proto, networking/v1/virtual_service.proto,
  networking/v1alpha3/envoy_filter.proto, mesh/v1alpha1/config.proto (ExtensionProvider).
"""

from typing import Any

ANY = object()
TEXT, NUMBER, TRUTH = (str, int, bool)

_METADATA = {"name": TEXT, "namespace": TEXT}
_TARGETS = [{"group": TEXT, "kind": TEXT, "name": TEXT}]
_EXT_AUTH = {
    "failOpen": TRUTH,
    "timeout": TEXT,
    "headersToExtAuth": [TEXT],
    "bodyToExtAuth": {"maxRequestBytes": NUMBER},
    "grpc": {"backendRefs": [{"group": TEXT, "kind": TEXT, "name": TEXT, "port": NUMBER}]},
}
_JSON_PATCH = {
    "type": {
        "type.googleapis.com/envoy.config.listener.v3.Listener",
        "type.googleapis.com/envoy.config.cluster.v3.Cluster",
    },
    "name": TEXT,
    "operation": {"op": {"add"}, "path": TEXT, "value": ANY},
}
_FILTER_MATCH = {"name": TEXT, "subFilter": {"name": TEXT}}
_CONFIG_PATCH = {
    "applyTo": {
        "HTTP_FILTER",
        "HTTP_ROUTE",
        "NETWORK_FILTER",
        "CLUSTER",
        "VIRTUAL_HOST",
        "LISTENER",
    },
    "match": {
        "context": {"GATEWAY"},
        "listener": {"filterChain": {"filter": _FILTER_MATCH}},
        "cluster": {"service": TEXT},
        "routeConfiguration": {"vhost": {"route": {"name": TEXT}}},
    },
    "patch": {"operation": {"MERGE", "INSERT_BEFORE"}, "value": ANY},
}
_HTTP_RULE = {
    "name": TEXT,
    "match": [{"method": {"exact": TEXT}, "uri": {"regex": TEXT}}],
    "headers": {"request": {"set": ANY, "remove": [TEXT]}},
    "rewrite": {"uriRegexRewrite": {"match": TEXT, "rewrite": TEXT}, "authority": TEXT},
    "route": [{"destination": {"host": TEXT, "port": {"number": NUMBER}}}],
    "timeout": TEXT,
    "retries": {"attempts": NUMBER},
}

SPECS: dict[tuple[str, str], Any] = {
    ("gateway.envoyproxy.io/v1alpha1", "SecurityPolicy"): {
        "targetRefs": _TARGETS,
        "extAuth": _EXT_AUTH,
    },
    ("gateway.envoyproxy.io/v1alpha1", "ClientTrafficPolicy"): {
        "targetRefs": _TARGETS,
        "headers": {"withUnderscoresAction": {"Allow", "RejectRequest", "DropHeader"}},
    },
    ("gateway.envoyproxy.io/v1alpha1", "EnvoyExtensionPolicy"): {
        "targetRefs": _TARGETS,
        "lua": [{"type": {"Inline"}, "inline": TEXT}],
    },
    ("gateway.envoyproxy.io/v1alpha1", "EnvoyPatchPolicy"): {
        "targetRef": _TARGETS[0],
        "type": {"JSONPatch"},
        "jsonPatches": [_JSON_PATCH],
    },
    ("security.istio.io/v1", "AuthorizationPolicy"): {
        "selector": {"matchLabels": ANY},
        "action": {"CUSTOM"},
        "provider": {"name": TEXT},
        "rules": [{}],
    },
    ("networking.istio.io/v1", "VirtualService"): {
        "hosts": [TEXT],
        "gateways": [TEXT],
        "http": [_HTTP_RULE],
    },
    ("networking.istio.io/v1alpha3", "EnvoyFilter"): {
        "workloadSelector": {"labels": ANY},
        "configPatches": [_CONFIG_PATCH],
    },
}
PROVIDER = {
    "name": TEXT,
    "envoyExtAuthzGrpc": {
        "service": TEXT,
        "port": NUMBER,
        "timeout": TEXT,
        "failOpen": TRUTH,
        "statusOnError": TEXT,
        "includeRequestBodyInCheck": {
            "maxRequestBytes": NUMBER,
            "allowPartialMessage": TRUTH,
            "packAsBytes": TRUTH,
        },
    },
}


def misfits(found: Any, shape: Any, path: str = "") -> list[str]:
    """Return where a document is not of that shape: unknown fields and values of another kind."""
    if shape is ANY:
        return []
    if isinstance(shape, set):
        return [] if found in shape else [f"{path}: {found!r}"]
    if isinstance(shape, list):
        if not isinstance(found, list):
            return [f"{path}: not a list"]
        return [m for i, one in enumerate(found) for m in misfits(one, shape[0], f"{path}[{i}]")]
    if isinstance(shape, dict):
        if not isinstance(found, dict):
            return [f"{path}: not an object"]
        unknown = [f"{path}.{name}: unknown" for name in found if name not in shape]
        known = [name for name in found if name in shape]
        return unknown + [m for n in known for m in misfits(found[n], shape[n], f"{path}.{n}")]
    is_other = type(found) is not shape
    return [f"{path}: {found!r}"] if is_other else []


def misfits_of(document: Any) -> list[str]:
    """Return where one resource is not what its kind takes."""
    kind = (document.get("apiVersion"), document.get("kind"))
    if kind not in SPECS:
        return [f"{kind}: unknown"]
    whole = {"apiVersion": TEXT, "kind": TEXT, "metadata": _METADATA, "spec": SPECS[kind]}
    return misfits(document, whole)
