"""The operator's console: a web page over a Desk, in any browser, without the internet."""

from vla_rl.hil.console.server import Console, serve

__all__ = ["Console", "serve"]
