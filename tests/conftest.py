"""Fixtures that several folders share; each lives in a file of its own below `fixtures/`."""

pytest_plugins = ["fixtures.kfp_server", "fixtures.seaweedfs"]
