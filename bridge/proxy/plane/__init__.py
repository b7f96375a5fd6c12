"""The asyncio plane: HTTP between clients and the monolith; the specification of the Rust one."""
