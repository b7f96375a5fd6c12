"""The control process: stages, gates, flips, write-back, and the API over them."""
