from __future__ import annotations

from typing import Any

import jsonschema_rs
import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.checks import load_all_checks
from schemathesis.checks import CHECKS

from goatherd.contracts.ids import new_id
from tests.api.conftest import House, build, make_settings

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:schemathesis.*")
