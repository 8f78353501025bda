"""`aas` run in this process."""

from typer.testing import CliRunner

from aas.cli import app


def run(*arguments: object) -> tuple[int, str]:
    """Exit code and output; what is no mistake of the user's is raised."""
    result = CliRunner().invoke(app, list(map(str, arguments)))
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.output
