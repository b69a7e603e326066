"""Executes notebooks from top to bottom: `python -m notebooks.run NAME ...`, see README.md."""

import argparse
import ast
import base64
import contextlib
import io
import json
import os
import re
import shlex
import sys
import tempfile
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent
NAMES = tuple(sorted(path.stem for path in FOLDER.glob("*.ipynb")))


def code_cells(name: str) -> list[dict[str, Any]]:
    """Returns the code cells of a notebook, as stored."""
    cells = json.loads((FOLDER / f"{name}.ipynb").read_text())["cells"]
    return [cell for cell in cells if cell["cell_type"] == "code"]


def execute(name: str) -> None:
    """Executes a notebook at its real setting in a Jupyter kernel, and stores its outputs."""
    import nbformat
    from nbclient import NotebookClient

    path = FOLDER / f"{name}.ipynb"
    notebook = nbformat.read(path, as_version=4)
    os.environ["PATH"] = os.pathsep.join([os.path.dirname(sys.executable), os.environ["PATH"]])
    os.environ["PYTHONPATH"] = os.pathsep.join([str(FOLDER.parent), os.environ.get("PYTHONPATH", "")])
    os.environ["VIDJAX_CACHE"] = "cache"  # relative, as it is printed
    os.environ["TTY_COMPATIBLE"] = "0"  # no progress bars of `!vidjax`, which runs in a terminal
    with tempfile.TemporaryDirectory() as folder:
        client = NotebookClient(notebook, timeout=1800, resources={"metadata": {"path": folder}})
        client.coalesce_streams = True
        client.execute()
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)  # times of the day
        for output in cell.get("outputs", []):
            if "image/png" in output.get("data", {}):
                output.data["image/png"] = _compressed(output.data["image/png"])
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    notebook.metadata = {"kernelspec": kernel, "language_info": {"name": "python"}}
    nbformat.write(notebook, path)


def _compressed(png: str) -> str:
    """Reduces a PNG image, as Base64, to 128 colors, since video frames hardly compress otherwise."""
    from PIL import Image

    image, reduced = Image.open(io.BytesIO(base64.b64decode(png))), io.BytesIO()
    image.convert("RGB").quantize(128).save(reduced, "PNG", optimize=True)
    return base64.b64encode(reduced.getvalue()).decode()


def execute_small(name: str) -> list[bool]:
    """Executes a notebook at its small setting in this process, without Jupyter.

    Returns:
      Whether each code cell printed or drew something.

    Raises:
      RuntimeError: a `vidjax` command failed.
    """
    from unittest import mock

    import matplotlib
    import matplotlib.pyplot as plt

    plt.switch_backend("Agg")
    scope, shown = {"__name__": "__main__", "_vidjax": _vidjax}, []
    with contextlib.ExitStack() as stack:
        stack.enter_context(contextlib.chdir(stack.enter_context(tempfile.TemporaryDirectory())))
        stack.enter_context(matplotlib.rc_context())
        stack.enter_context(mock.patch.dict(os.environ))
        for i, cell in enumerate(code_cells(name)):
            tree = ast.parse(to_python("".join(cell["source"])), f"{name}.ipynb, code cell {i}")
            last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
            value, printed = None, io.StringIO()
            with contextlib.redirect_stdout(printed):
                exec(compile(tree, f"{name}.ipynb, code cell {i}", "exec"), scope)
                if last:
                    expression = compile(ast.Expression(last.value), f"{name}.ipynb, code cell {i}", "eval")
                    value = eval(expression, scope)
            shown.append(bool(printed.getvalue() or plt.get_fignums() or value is not None))
            plt.close("all")
    return shown


def to_python(source: str) -> str:
    """Converts the source of a cell to Python at the small setting.

    `NAME = VALUE  # tests: SMALL` becomes `NAME = SMALL`, `!vidjax ...` calls the command line in this
    process, and `%pip` installs nothing.
    """
    source = re.sub(r"^(\w+ = ).*# tests: (.*)$", r"\1\2", source, flags=re.M)
    source = re.sub(
        r"^( *)!vidjax ((?:.*\\\n)*.*)$",
        lambda m: f"{m[1]}_vidjax(f{' '.join(m[2].replace(chr(92), ' ').split())!r})",
        source,
        flags=re.M,
    )
    return re.sub(r"^( *)%pip .*$", r"\1pass", source, flags=re.M)


def _vidjax(line: str) -> None:
    from vidjax import cli

    try:
        cli.main(shlex.split(line))
    except SystemExit as e:
        if e.code:
            raise RuntimeError(f"vidjax {line}: exit code {e.code}") from None


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m notebooks.run", description=__doc__)
    parser.add_argument("names", nargs="+", choices=NAMES, metavar="NAME", help="notebook, without .ipynb")
    parser.add_argument(
        "--small", action="store_true", help="the small setting of the tests, without outputs"
    )
    args = parser.parse_args()
    for name in args.names:
        (execute_small if args.small else execute)(name)


if __name__ == "__main__":
    main()
