"""Prints the acceptance table of surgery: every case of every row, before and after, with the largest error.

``python tests/benchmarks/surgery_table.py [ROW...] [--json FILE]``; exit code 1 where a case is not as it should be.
"""

import argparse
import json
import sys
import time
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1] / "components" / "surgery"), str(Path(__file__).parents[2])]

from surgery_cases import cases, judge, verdict_of  # noqa: E402


def main() -> int:
    """Judges the cases and prints a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("rows", nargs="*", type=int, help="rows to run; default: all")
    parser.add_argument("--json", type=Path, help="also write the results here")
    arguments = parser.parse_args()
    listed = {row: some for row, some in cases().items() if not arguments.rows or row in arguments.rows}
    print("| row | case | TensorRT-RTX before | after | max error | inputs | verdict |")
    print("|---|---|---|---|---|---|---|")
    results = []
    started = time.monotonic()
    for row, some in listed.items():
        for case in some:
            judgement = judge(row, case)
            wrong = verdict_of(case, judgement)
            error = "not compared" if judgement.error is None else f"{judgement.error:.1e}"
            after = "diagnosis" if case.after == "diagnosis" else judgement.after
            verdict = wrong or "as demanded"
            print(
                f"| {row} | {case.name} | {judgement.before} | {after} | {error} | {judgement.compared} | {verdict} |",
                flush=True,
            )
            result = {"row": row, "case": case.name, "before": judgement.before, "after": after}
            results.append(result | {"max_error": judgement.error, "inputs": judgement.compared, "wrong": wrong})
    failed = sum(bool(result["wrong"]) for result in results)
    missing = sorted(set(range(1, 48)) - {int(result["row"]) for result in results}) if not arguments.rows else []
    print(f"\n{len(listed)} rows, {len(results)} cases, {failed} not as demanded, {time.monotonic() - started:.0f} s")
    if missing:
        print(f"rows without a case: {', '.join(map(str, missing))}")
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=2) + "\n")
    return 1 if failed or missing else 0


if __name__ == "__main__":
    sys.exit(main())
