"""The host that serves doors inside an Envoy, which loads this Python as a module."""
