"""`python3 -m generate [--check] [FOLDER]`: writes the dashboards, or checks that the files are up to date."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from .all import DASHBOARDS

FOLDER = Path(__file__).resolve().parent.parent / "dashboards"


def rendered() -> dict[str, str]:
    """The text of each file, by name."""
    return {
        f"{dashboard.uid}.json": json.dumps(dashboard.to_json(), indent=2, ensure_ascii=False, sort_keys=True) + "\n"
        for dashboard in DASHBOARDS
    }


def differences(folder: Path) -> list[str]:
    """Differences between the folder and the generator, one sentence each."""
    wanted = rendered()
    found = {path.name: path.read_text(encoding="utf-8") for path in sorted(folder.glob("*.json"))}
    wrong = [f"{name} is missing" for name in wanted if name not in found]
    wrong += [f"{name} differs from what the generator writes" for name in wanted if found.get(name, wanted[name]) != wanted[name]]
    wrong += [f"{name} belongs to no dashboard" for name in found if name not in wanted]
    return wrong


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="generate", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 if a file is not up to date")
    parser.add_argument("folder", nargs="?", type=Path, default=FOLDER)
    options = parser.parse_args(arguments)
    folder: Path = options.folder
    if options.check:
        wrong = differences(folder)
        for sentence in wrong:
            print(f"error: {sentence}; run scripts/dashboards", file=sys.stderr)
        return 1 if wrong else 0
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in rendered().items():
        (folder / name).write_text(text, encoding="utf-8")
    for path in folder.glob("*.json"):
        if path.name not in rendered():
            path.unlink()
    print(f"{len(DASHBOARDS)} dashboards in {folder}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
