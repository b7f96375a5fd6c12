"""The Rust plane, as the rest of a worker sees it. Its code is in `bridge/proxy/core`."""
