"""A headless browser for tests, where this machine has one."""

import shutil

CHROMIUM = shutil.which("chromium")
QUIET = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"]
QUIET += ["--disable-background-networking", "--disable-component-update"]
"""Options without a sandbox, which a container has not, and without requests of its own."""
