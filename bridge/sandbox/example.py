"""The example configuration beside this module, made to fit one sandbox exchange."""

from __future__ import annotations

import re
from importlib import resources

from bridge.sandbox.provision import RAILSWITCH_ROLE, as_role


def example_config(application_url: str, upstream: str) -> str:
    """As text; its data directory is beside the file that it is written to."""
    text = resources.files("bridge.sandbox").joinpath("railswitch.toml").read_text()
    return fitted(text, application_url, upstream)


def fitted(text: str, application_url: str, upstream: str) -> str:
    """A configuration with the places of its monolith."""
    for key, value in (
        ("database_url", as_role(application_url, RAILSWITCH_ROLE)),
        ("install_url", application_url),
        ("upstream", upstream),
    ):
        text, times = re.subn(rf'^{key} = ".*"$', f'{key} = "{value}"', text, flags=re.MULTILINE)
        assert times == 1, key
    return text
