"""`python -m aas.cli`, the same as the command `aas`."""

from aas.cli import app

if __name__ == "__main__":
    app(prog_name="aas")
