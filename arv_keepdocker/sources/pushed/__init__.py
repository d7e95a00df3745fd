"""An image that the container engine pushes to this program, which acts as a registry on 127.0.0.1 for the push.

https://github.com/opencontainers/distribution-spec
"""
