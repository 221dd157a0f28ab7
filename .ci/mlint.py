"""Run transformers-mlinter on the Hub files; fail on findings that pyproject.toml does not list with a reason."""

import json
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
HUB = ("configuration", "tokenization", "modeling", "pipeline", "sharing")
FILES = [f"modeling_msa/{name}_msa_transformer.py" for name in HUB]

excused = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["modeling-msa"]["mlinter"]
with tempfile.TemporaryDirectory() as folder:
    report = Path(folder) / "report.json"
    command = [sys.executable, "-m", "mlinter", "--no-progress", "--no-cache", "--output-json", str(report), *FILES]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if not report.is_file():
        sys.exit(f"mlinter did not run:\n{run.stdout}{run.stderr}")
    findings = json.loads(report.read_text())["findings"]

left = [finding for finding in findings if finding["rule"] not in excused]
for finding in left:
    print(f"{finding['path']}:{finding['line']}: {finding['message']}")
idle = sorted(set(excused) - {finding["rule"] for finding in findings})
if idle:
    print(f"pyproject.toml excuses findings that mlinter no longer has: {', '.join(idle)}")
print(f"mlinter: {len(left)} findings; {len(findings) - len(left)} excused in pyproject.toml")
sys.exit(bool(left or idle))
