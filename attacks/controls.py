"""Negative controls: the code without one defence, after which its attack must do harm."""

import shutil
import sys
import sysconfig
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from attacks.attacker import ABANDONED, API_FLOOD, SLOW_READERS

ROOT: Final = Path(__file__).resolve().parent.parent
PACKAGES: Final = ("authz", "meter", "tollkeeper", "envoy")


@dataclass(frozen=True, slots=True)
class Removal:
    """A text of a file that is the defence, and what takes its place."""

    path: str
    old: str
    new: str


_ENVOY: Final = "envoy/envoy.yaml"
# The checks of an account do not wait in turn.
_TURNS: Final = Removal(
    "authz/load.py",
    "if account.deciding < AT_ONCE or now_s >= self._shared_until_s:",
    "if account.deciding >= 0:",
)
# Bodies of any weight are parsed.
_WEIGHT: Final = Removal(
    "authz/endpoints/body.py",
    "if heavy := refuse_heavy(kept):",
    "if heavy := None and refuse_heavy(kept):",
)
# Large bodies are read by the authz of all checks, on its event loop, whatever they take.
_BODIES: Final = (
    Removal(
        "tollkeeper/stack/servers/envoy_server.py",
        "authz_bodies=_listed([bodies.listen])",
        "authz_bodies=None",
    ),
    Removal(
        "authz/decide.py",
        "is_large = len(request.body) > SMALL_BODY_BYTES",
        "is_large = False",
    ),
    Removal(
        "authz/endpoints/body_work.py", "        if over_s <= 0:\n", "        if over_s <= 1e9:\n"
    ),
)
CONTROLS: Final[Mapping[str, tuple[Removal, ...]]] = {
    # The whole body is read before the credential is judged.
    "withheld bodies": (
        Removal(
            _ENVOY,
            "max_request_bytes: 65536\n                        allow_partial_message: true",
            "max_request_bytes: 25165824\n                        allow_partial_message: false",
        ),
    ),
    # Envoy sends no more requests to the provider at once than slow readers keep.
    SLOW_READERS: (
        Removal(_ENVOY, "max_connections: 4096", "max_connections: 100"),
        Removal(_ENVOY, "max_pending_requests: 8192", "max_pending_requests: 1"),
    ),
    # Connections may reset any number of streams at once.
    "rapid resets": (
        Removal(_ENVOY, "max_concurrent_streams: 100", "max_concurrent_streams: 100000"),
        Removal(
            _ENVOY,
            "http: { max_requests_per_io_cycle: 5 }",
            "http: { max_requests_per_io_cycle: 1000000 }",
        ),
        Removal(
            _ENVOY,
            "overload: { premature_reset_total_stream_count: 100 }",
            "overload: { premature_reset_total_stream_count: 1000000 }",
        ),
    ),
    # Every made-up key is looked up.
    "made-up keys": (
        Removal(
            "authz/callers/principal_cache.py",
            "FIRST_LOOKUPS_PER_S: Final = 1_000",
            "FIRST_LOOKUPS_PER_S: Final = 1_000_000",
        ),
    ),
    # The whole hold is charged where nobody tells the cost, and nothing corrects it.
    ABANDONED: (
        Removal(
            "meter/settlement/spreading.py",
            "if sum(guess.cost_picos for guess in guesses) == total_picos:",
            "if guesses:",
        ),
        Removal(
            "meter/settlement/usual_use.py",
            "tokens = min(hold.max_tokens, max(usual_tokens,",
            "tokens = max(hold.max_tokens, max(usual_tokens,",
        ),
    ),
    # Nested bodies are parsed to any depth, and bodies of any weight.
    "bodies: deep": (
        _WEIGHT,
        *_BODIES,
    ),
    # Bodies of any weight are parsed.
    "bodies: many members": (
        _WEIGHT,
        *_BODIES,
    ),
    "bodies: text": _BODIES,
    "bodies: images": _BODIES,
    "bodies: tool schemas": _BODIES,
    "flood of one account": (_TURNS,),
    # Bodies of accounts without credit are read.
    "flood without credit": (
        Removal(
            "authz/decide.py",
            "if available_picos < cheapest_charge(",
            "if available_picos < 0 * cheapest_charge(",
        ),
        _WEIGHT,
        *_BODIES,
    ),
    # No rates for sources and credentials.
    API_FLOOD: (
        Removal(
            _ENVOY,
            "filter_enforced: { default_value: { numerator: 100 } }",
            "filter_enforced: { default_value: { numerator: 0 } }",
        ),
    ),
    # Searches that no request asks for are not in the estimate.
    "parallel searches": (
        Removal(
            "meter/pricing/prices.py",
            "searches += model.unasked_searches * demand.prompts",
            "searches += 0",
        ),
    ),
    # The house bears no debt.
    "exceeded holds": (
        Removal(
            "meter/ledger/write_offs.py",
            "rows = await connection.fetch(_LIST_OVERDRAWN, ACCOUNTS_AT_ONCE)",
            "rows = []",
        ),
    ),
    # A batch of holds waits for accounts that are locked.
    "locked account": (
        _TURNS,
        Removal(
            "meter/holds/hold_store.py",
            "to_arguments(requests, self._lifetime, may_wait)",
            "to_arguments(requests, self._lifetime, True)",
        ),
    ),
}


def interpreter_without(attacks: Iterable[str], folder: Path) -> str:
    """Return an interpreter whose code is a copy of this clone without the defences.

    Raises ValueError when the text of a defence is not there once: then the control proves
    nothing.
    """
    code, environment = folder / "code", folder / "venv"
    for package in PACKAGES:
        shutil.copytree(ROOT / package, code / package)
    for removal in dict.fromkeys(one for attack in attacks for one in CONTROLS[attack]):
        file = code / removal.path
        text = file.read_text()
        if text.count(removal.old) != 1:
            raise ValueError(f"{removal.path} does not have {removal.old!r} once")
        file.write_text(text.replace(removal.old, removal.new))
    # A virtual environment that finds the copy first, and everything else where it is.
    base = Path(sys.executable).resolve()
    packages = environment / f"lib/python{sys.version_info[0]}.{sys.version_info[1]}/site-packages"
    packages.mkdir(parents=True)
    (packages / "code.pth").write_text(f"{code}\n{sysconfig.get_path('purelib')}\n")
    (environment / "pyvenv.cfg").write_text(f"home = {base.parent}\n")
    (environment / "bin").mkdir()
    (environment / "bin/python").symlink_to(base)
    return str(environment / "bin/python")
