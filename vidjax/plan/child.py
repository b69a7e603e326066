"""Compiles one step: reads a config as JSON from standard input, and prints the plan as JSON."""

import json
import sys

from vidjax.config import restore
from vidjax.errors import UserError
from vidjax.plan.devices import devices
from vidjax.plan.step import compile_step


def main() -> int:
    name, quick = sys.argv[1], "--quick" in sys.argv[2:]
    try:
        found, chip = devices(name)
        plan = compile_step(restore(json.load(sys.stdin)), name, found, chip, quick)
    except UserError as e:
        print(f"vidjax: {e}", file=sys.stderr)
        return 2
    print(json.dumps(plan.to_json()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
