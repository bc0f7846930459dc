"""Makes `pytest labs/02-tcp-echo-server/checks` perform the checks of that lab."""

pytest_plugins = ["sockwork.pytest_plugin"]
