"""An image straight from a registry of the OCI distribution specification, with no container engine.

https://github.com/opencontainers/distribution-spec
"""
