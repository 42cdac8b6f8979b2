"""`python -m meter.api`: print the OpenAPI document that is kept as `openapi.json`."""

import json
import sys

from meter.api.app import openapi_document

json.dump(openapi_document(), sys.stdout, indent=2)
sys.stdout.write("\n")
