"""What must stand at the root: plugins that are loaded for the whole run, and options of plugins that may be missing.

The guards and the rest are in ``tests/conftest.py``.
"""

import pytest

pytest_plugins = ["pytester"]

# Set by pyproject.toml for plugins that the test suite needs and a first look at the examples does not.
OPTIONS_OF_PLUGINS = {"timeout": ["timeout"], "asyncio": ["asyncio_mode", "asyncio_default_fixture_loop_scope"]}


def pytest_addoption(parser: pytest.Parser, pluginmanager: pytest.PytestPluginManager) -> None:
    """Let --strict-config pass without the plugins that would know these options."""
    for plugin, options in OPTIONS_OF_PLUGINS.items():
        if not pluginmanager.has_plugin(plugin):
            for option in options:
                parser.addini(option, f"of pytest-{plugin}, which is not installed")
