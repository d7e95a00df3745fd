"""An image that the container engine pushes to a registry which this program is, on 127.0.0.1, for that long.

https://github.com/opencontainers/distribution-spec
"""
