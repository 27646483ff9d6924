#!/usr/bin/env python3
"""Prints the table in SECURITY.md of what hostile peers cost.

    cargo bench -p heartbeat-tokio --bench crowd -- --json "$PWD/target/crowd.json"
    .ci/crowd-table.py target/crowd.json
"""

import json
import sys

FIGURES = ["lag, 99 %", "honest dead", "processor", "memory"]

print("| attack | " + " | ".join(FIGURES) + " |")
print("|---" * (1 + len(FIGURES)) + "|")
attacks = {}
for row in json.load(open(sys.argv[1]))["rows"]:
    attack, _, figure = row["input"].removeprefix("flood ").partition(": ")
    if figure in FIGURES and row["plain"] is not None:
        attacks.setdefault(attack, {})[figure] = row
for attack, rows in attacks.items():
    cells = []
    for figure in FIGURES:
        digits = 0 if figure == "honest dead" else 1
        cells.append("{ours:.{0}f} ({plain:.{0}f})".format(digits, **rows[figure]))
    print("| " + " | ".join([attack, *cells]) + " |")
